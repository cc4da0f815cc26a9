#include "kv/pin_table.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "kv/test_session.h"

namespace trellis {
namespace {

using std::chrono::seconds;
using Tokens = std::vector<TokenId>;

PinTable::TimePoint At(int second) {
  return PinTable::TimePoint(seconds(second));
}

Tokens Prompt(TokenId first, size_t n) {
  Tokens tokens(n);
  for (size_t i = 0; i < n; i++) tokens[i] = first + static_cast<TokenId>(i % 7);
  return tokens;
}

class PinTableTest : public testing::Test {
 protected:
  static constexpr size_t kCapacity = 40;

  PinTableTest() {
    const PageLayout layout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 2};
    auto cache =
        PageCache::Create({.layout = layout, .capacity_bytes = kCapacity * layout.page_bytes()});
    cache_ = std::move(*cache);
    pins_.emplace(*cache_, 10);
  }

  void Compute(const Tokens& tokens, const ScopeKey& scope = "") {
    TestSession session(*cache_, scope, tokens);
    ASSERT_TRUE(session.Reserve(tokens.size()).ok());
    session.Commit(std::span(tokens).subspan(session.tokens().size()));
  }
  // Fills the cache with other things.
  void Flood(TokenId first) {
    for (TokenId i = 0; i < 40; i++) Compute(Prompt(first + 10 * i, 100));
  }
  size_t Resident(const Tokens& tokens) const { return cache_->MatchLength("", tokens); }
  size_t Add(const std::string& owner, const Tokens& tokens, int expires) {
    const size_t n = pins_->Add(owner, "", tokens, At(expires)).num_tokens;
    cache_->Validate();
    EXPECT_LE(pins_->num_pages(), pins_->max_pages());
    return n;
  }

  std::unique_ptr<PageCache> cache_;
  std::optional<PinTable> pins_;
};

TEST_F(PinTableTest, HoldsWholePagesUntilItsTimeIsUp) {
  const Tokens prompt = Prompt(1, 100);
  Compute(prompt);
  EXPECT_EQ(Add("a", prompt, 300), 96u);
  EXPECT_EQ(pins_->num_pages(), 3u);
  Flood(1000);
  EXPECT_EQ(Resident(prompt), 96u);
  pins_->Expire(At(299));
  Flood(2000);
  EXPECT_EQ(Resident(prompt), 96u);
  EXPECT_EQ(pins_->NextExpiry(), At(300));
  pins_->Expire(At(300));
  EXPECT_EQ(pins_->size(), 0u);
  EXPECT_EQ(pins_->NextExpiry(), std::nullopt);
  EXPECT_EQ(cache_->Stats().pinned, 0u);
  Flood(3000);
  EXPECT_EQ(Resident(prompt), 0u);
}

TEST_F(PinTableTest, WhatIsNotThereIsNotPinned) {
  EXPECT_EQ(Add("a", Prompt(1, 100), 300), 0u);
  Compute(Prompt(1, 20));
  EXPECT_EQ(Add("a", Prompt(1, 100), 300), 0u) << "less than a page";
  EXPECT_EQ(pins_->size(), 0u);
}

TEST_F(PinTableTest, AConversationIsOnePin) {
  for (size_t turn = 1; turn <= 5; turn++) {
    Compute(Prompt(1, 60 * turn));
    EXPECT_EQ(Add("a", Prompt(1, 60 * turn), 300 + static_cast<int>(turn)),
              60 * turn / kPageTokens * kPageTokens);
    EXPECT_EQ(pins_->size(), 1u);
  }
  EXPECT_EQ(Add("a", Prompt(1, 60), 200), 32u) << "the longer one holds it";
  EXPECT_EQ(pins_->size(), 1u);
  Add("a", Prompt(1, 60), 900);
  EXPECT_EQ(pins_->size(), 2u) << "but not for so long";
  EXPECT_EQ(pins_->num_pages(), 9u) << "pages of both count once";
  Add("b", Prompt(1, 300), 300);
  EXPECT_EQ(pins_->size(), 3u) << "and another's pins are its own";
}

TEST_F(PinTableTest, WhoHoldsMostGivesUpWhatEndsFirst) {
  for (TokenId first : {100, 200, 300, 400, 500}) Compute(Prompt(first, 96));
  Add("hoarder", Prompt(100, 96), 500);
  Add("hoarder", Prompt(200, 96), 400);
  Add("hoarder", Prompt(300, 96), 600);
  Add("other", Prompt(400, 96), 50);
  EXPECT_EQ(pins_->num_pages(), 9u);
  Flood(9000);
  EXPECT_EQ(Resident(Prompt(200, 96)), 0u);
  for (TokenId first : {100, 300, 400}) EXPECT_EQ(Resident(Prompt(first, 96)), 96u) << first;
}

TEST_F(PinTableTest, ALongPromptIsPinnedAsFarAsTheShareGoes) {
  Compute(Prompt(1, 900));
  EXPECT_EQ(Add("a", Prompt(1, 900), 300), 320u);
}

TEST_F(PinTableTest, RemovesOnesOwnOnly) {
  Compute(Prompt(1, 64));
  const PinId id = pins_->Add("a", "", Prompt(1, 64), At(9)).id;
  EXPECT_FALSE(pins_->Remove(id, "b"));
  EXPECT_EQ(pins_->RemoveAll("b"), 0u);
  EXPECT_TRUE(pins_->Remove(id, "a"));
  EXPECT_FALSE(pins_->Remove(id, "a"));
  Add("a", Prompt(1, 64), 9);
  EXPECT_EQ(pins_->RemoveAll("a"), 1u);
  EXPECT_EQ(pins_->num_pages(), 0u);
}

TEST_F(PinTableTest, ReleasesWhatEndsFirst) {
  Compute(Prompt(1, 64));
  Compute(Prompt(100, 64));
  Add("a", Prompt(1, 64), 20);
  Add("b", Prompt(100, 64), 10);
  EXPECT_TRUE(pins_->ReleaseOne());
  EXPECT_EQ(pins_->NextExpiry(), At(20));
  EXPECT_TRUE(pins_->ReleaseOne());
  EXPECT_FALSE(pins_->ReleaseOne());
}

// Against the definition: what is pinned is the union of the pins' pages, and stays resident.
TEST_F(PinTableTest, AgreesWithItsDefinitionOnRandomHistories) {
  std::mt19937 random(17);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  struct Expected {
    std::string owner;
    Tokens tokens;
    int expires;
  };
  std::map<uint64_t, Expected> expected;
  int now = 0;
  const auto same_beginning = [](const Tokens& longer, const Tokens& shorter) {
    return shorter.size() <= longer.size() &&
           std::equal(shorter.begin(), shorter.end(), longer.begin());
  };
  size_t num_given_up = 0;
  for (int step = 0; step < 3000; step++) {
    const size_t action = below(10);
    if (action < 6) {
      Tokens prompt = Prompt(static_cast<TokenId>(below(3) * 50), 1 + below(200));
      if (below(2) == 0) prompt[below(prompt.size())] += 20;
      Compute(prompt);
      const std::string owner(1, static_cast<char>('a' + below(3)));
      const int expires = now + 1 + static_cast<int>(below(50));
      const PinTable::Added added = pins_->Add(owner, "", prompt, At(expires));
      prompt.resize(added.num_tokens);
      ASSERT_EQ(added.num_tokens == 0, PagesFor(prompt.size() + 1) == 1 && prompt.empty());
      std::erase_if(expected, [&](const auto& entry) {
        const Expected& e = entry.second;
        return entry.first != added.id.value() && e.owner == owner && e.expires <= expires &&
               !prompt.empty() && same_beginning(prompt, e.tokens);
      });
      if (added.num_tokens > 0 && !expected.contains(added.id.value())) {
        expected[added.id.value()] = {owner, prompt, expires};
      }
      // What was given up for it is gone: exactly as many as there are fewer.
      while (expected.size() > pins_->size()) {
        std::map<std::string, size_t> held;
        for (const auto& [id, e] : expected) {
          if (id != added.id.value()) held[e.owner] += e.tokens.size();
        }
        std::string most;
        for (const auto& [name, tokens] : held) {
          if (most.empty() || tokens > held[most]) most = name;
        }
        uint64_t first = 0;
        for (const auto& [id, e] : expected) {
          if (id == added.id.value() || e.owner != most) continue;
          if (first == 0 || e.expires < expected[first].expires) first = id;
        }
        expected.erase(first);
        num_given_up++;
      }
    } else if (action < 8) {
      now += static_cast<int>(below(20));
      pins_->Expire(At(now));
      std::erase_if(expected, [&](const auto& entry) { return entry.second.expires <= now; });
    } else if (!expected.empty()) {
      const auto victim = std::next(expected.begin(), static_cast<long>(below(expected.size())));
      ASSERT_TRUE(pins_->Remove(PinId(victim->first), victim->second.owner));
      expected.erase(victim);
    }
    cache_->Validate();
    ASSERT_EQ(pins_->size(), expected.size()) << step;
    std::set<Tokens> pages;
    for (const auto& [id, e] : expected) {
      ASSERT_EQ(Resident(e.tokens), e.tokens.size()) << step;
      for (size_t end = kPageTokens; end <= e.tokens.size(); end += kPageTokens) {
        pages.insert(Tokens(e.tokens.begin(), e.tokens.begin() + static_cast<long>(end)));
      }
    }
    ASSERT_EQ(pins_->num_pages(), pages.size()) << step;
    ASSERT_EQ(cache_->Stats().pinned, pages.size()) << step;
    ASSERT_LE(pages.size(), pins_->max_pages());
  }
  EXPECT_GT(num_given_up, 50u);
}

}  // namespace
}  // namespace trellis
