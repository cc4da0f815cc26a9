#include "text/special_tokens.h"

#include <gtest/gtest.h>

#include <list>
#include <random>
#include <string>

#include "llama-vocab.h"
#include "text/test_vocab.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace trellis {
namespace {

using Match = SpecialTokenMatch;
using Accept = SpecialTokenFinder::Accept;

// The slow, obvious way, which is libllama's (tokenizer_st_partition): one token after the other,
// through all that is still text.
std::vector<Match> FindSlowly(const llama_vocab& vocab, const std::vector<TokenId>& tokens,
                              const std::string& text, const Accept& accept) {
  struct Fragment {
    size_t begin, end;
    TokenId token;  // -1: text
  };
  std::list<Fragment> fragments = {{0, text.size(), -1}};
  for (const TokenId token : tokens) {
    const std::string spelled = vocab.token_get_text(token);
    const auto attributes = vocab.token_get_attr(token);
    for (auto it = fragments.begin(); it != fragments.end(); ++it) {
      for (size_t from = it->begin; it->token < 0;) {
        const size_t at = text.find(spelled, from);
        if (at == std::string::npos || at + spelled.size() > it->end) break;
        from = at + 1;
        if (!accept(token, at, at + spelled.size())) continue;
        size_t begin = at, end = at + spelled.size();
        while ((attributes & LLAMA_TOKEN_ATTR_LSTRIP) != 0 && begin > it->begin &&
               IsAsciiSpace(text[begin - 1])) {
          --begin;
        }
        while ((attributes & LLAMA_TOKEN_ATTR_RSTRIP) != 0 && end < it->end &&
               IsAsciiSpace(text[end])) {
          ++end;
        }
        fragments.insert(it, {it->begin, begin, -1});
        fragments.insert(it, {begin, end, token});
        it->begin = from = end;
      }
    }
  }
  std::vector<Match> found;
  for (const Fragment& f : fragments) {
    if (f.token >= 0) found.push_back({f.begin, f.end, f.token});
  }
  return found;
}

std::string Describe(const std::vector<Match>& matches) {
  std::string text;
  for (const Match& m : matches) {
    text += "[" + std::to_string(m.begin) + "," + std::to_string(m.end) +
            ")=" + std::to_string(m.token) + " ";
  }
  return text;
}

// A vocabulary with the finder's list of its tokens, longest first, ties by id.
struct Loaded {
  explicit Loaded(const TestVocab& vocab) : tokenizer(Load(vocab)) {
    for (size_t i = 0; i < vocab.tokens.size(); ++i) {
      if (vocab.tokens[i].type == TokenType::kNormal) continue;
      tokens.push_back(static_cast<TokenId>(i));
    }
    const auto size = [&](TokenId id) { return vocab.tokens[static_cast<size_t>(id)].text.size(); };
    std::stable_sort(tokens.begin(), tokens.end(),
                     [&](TokenId a, TokenId b) { return size(a) > size(b); });
    finder.emplace(raw(), tokens);
  }
  const llama_vocab& raw() const { return *tokenizer->impl().vocab; }

  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<TokenId> tokens;
  std::optional<SpecialTokenFinder> finder;
};

TestVocab Nasty(const std::string& name) {
  std::vector<TestToken> special;
  for (const char* text : {"aa", "aaaa", "ab", "ba", "bab", "abba", "<a>", "<a><b>", "<b>", "> <",
                           " ", "  ", "\n", "\n\n", " \n"}) {
    special.push_back({text, TokenType::kUserDefined});
  }
  special.push_back({"b<", TokenType::kControl});
  TestVocab vocab = ByteVocab(special);
  for (const char single : {'a', '<'}) {
    vocab.tokens[static_cast<unsigned char>(single)].type = TokenType::kUserDefined;
  }
  // llama.cpp looks these up in a phi-3.
  for (const char* text : {"<s>", "</s>", "<unk>", "<|endoftext|>"}) vocab.tokens.push_back({text});
  vocab.name = name;
  return vocab;
}

const Accept kAll = [](TokenId, size_t, size_t) { return true; };

TEST(SpecialTokenFinderTest, LongerOnesComeFirstWhereverTheyStand) {
  const TestVocab vocab = Nasty("");
  const Loaded v(vocab);
  // "abba" wins over the "aa" before it, though it starts later.
  const std::vector<Match> found = v.finder->Find("aabba", kAll);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].token, vocab.Id("a"));
  EXPECT_EQ(found[1].token, vocab.Id("abba"));
  EXPECT_EQ(found[1].begin, 1u);
}

TEST(SpecialTokenFinderTest, RefusedOnesLeaveTheirPlaceToOthers) {
  const TestVocab vocab = Nasty("");
  const Loaded v(vocab);
  const auto found = v.finder->Find("abba", [&](TokenId token, size_t begin, size_t) {
    return token != vocab.Id("abba") && !(token == vocab.Id("ab") && begin == 0);
  });
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].token, vocab.Id("a"));
  EXPECT_EQ(found[1].token, vocab.Id("ba"));
}

// llama.cpp lets phi-3's special tokens take the white space after them.
TEST(SpecialTokenFinderTest, FindsWhatTheSlowWayFinds) {
  for (const char* name : {"", "phi-3"}) {
    const Loaded v(Nasty(name));
    std::mt19937 random(42);  // NOLINT: the same on each run
    size_t matches = 0;
    for (int i = 0; i < 4000; ++i) {
      std::string text;
      for (size_t size = random() % 40; size > 0; --size) text += "aaabbb<>< \nz"[random() % 12];
      const size_t refused = i % 3 == 0 ? random() % v.tokens.size() : v.tokens.size();
      const size_t modulus = 1 + random() % 7;
      const Accept accept = [&](TokenId token, size_t begin, size_t) {
        return token != static_cast<TokenId>(refused) && (i % 2 == 0 || begin % modulus != 0);
      };
      const auto found = v.finder->Find(text, accept);
      matches += found.size();
      ASSERT_EQ(Describe(found), Describe(FindSlowly(v.raw(), v.tokens, text, accept)))
          << name << " in \"" << text << "\"";
    }
    EXPECT_GT(matches, 20000u);
  }
}

TEST(SpecialTokenFinderTest, LongRunsAreCutFromTheLeft) {
  const TestVocab vocab = Nasty("");
  const Loaded v(vocab);
  const std::string text(100'003, 'a');
  const std::vector<Match> found = v.finder->Find(text, kAll);
  ASSERT_EQ(found.size(), 25'000u + 2);
  for (size_t i = 0; i < 25'000; ++i) ASSERT_EQ(found[i].begin, 4 * i);
  EXPECT_EQ(found[25'000].token, vocab.Id("aa"));
  EXPECT_EQ(found[25'001].token, vocab.Id("a"));
}

}  // namespace
}  // namespace trellis
