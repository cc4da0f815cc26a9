#include "text/stream_decoder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "text/test_vocab.h"

namespace trellis {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

class StreamDecoderTest : public testing::Test {
 protected:
  // One token for each byte.
  static std::vector<TokenId> Bytes(const std::string& text) {
    std::vector<TokenId> tokens;
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  StreamDecoder Decoder(std::vector<std::string> stop) const {
    return StreamDecoder(*tokenizer_, std::move(stop), SpecialTokens::kAsText);
  }
  // What each token gave, and at the end "|" and what Finish() gave.
  std::vector<std::string> Pieces(const std::string& text,
                                  std::vector<std::string> stop = {}) const {
    StreamDecoder decoder = Decoder(std::move(stop));
    std::vector<std::string> pieces;
    for (const TokenId token : Bytes(text)) pieces.push_back(decoder.Push(token));
    pieces.push_back("|" + decoder.Finish());
    return pieces;
  }
  std::string All(const std::string& text, std::vector<std::string> stop) const {
    StreamDecoder decoder = Decoder(std::move(stop));
    std::string all;
    for (const TokenId token : Bytes(text)) all += decoder.Push(token);
    return all + decoder.Finish() + (decoder.stopped() ? "|" + decoder.stop_hit() : "");
  }

  const TestVocab vocab_ = ByteVocab({{"<end>", TokenType::kControl}});
  const std::unique_ptr<Tokenizer> tokenizer_ = Load(vocab_);
};

using Strings = std::vector<std::string>;

TEST_F(StreamDecoderTest, NeverHalfACharacter) {
  EXPECT_EQ(Pieces("aé🦙"), (Strings{"a", "", "é", "", "", "", "🦙", "|"}));
}

TEST_F(StreamDecoderTest, InvalidBytesAreReplacedOnceItIsCertain) {
  EXPECT_EQ(Pieces("\xFFz"), (Strings{kBad, "z", "|"}));
  EXPECT_EQ(Pieces("\xF0\x9Fz"), (Strings{"", "", kBad + "z", "|"}));
  EXPECT_EQ(Pieces("\xE6\xBC"), (Strings{"", "", "|" + kBad}));
}

TEST_F(StreamDecoderTest, ControlTokensAreShownOnlyWhenAskedFor) {
  StreamDecoder hidden(*tokenizer_, {}, SpecialTokens::kAsText);
  EXPECT_EQ(hidden.Push(vocab_.Id("<end>")), "");
  StreamDecoder shown(*tokenizer_, {}, SpecialTokens::kParse);
  EXPECT_EQ(shown.Push(vocab_.Id("<end>")), "<end>");
}

TEST_F(StreamDecoderTest, AStopStringAcrossTokensNeverShows) {
  EXPECT_EQ(Pieces("xSTOPy", {"STOP"}), (Strings{"x", "", "", "", "", "", "|"}));
  EXPECT_EQ(Pieces("xSTy", {"STOP"}), (Strings{"x", "", "", "STy", "|"}));
  EXPECT_EQ(Pieces("xSTO", {"STOP"}), (Strings{"x", "", "", "", "|STO"}));
}

TEST_F(StreamDecoderTest, AStopStringInsideOneToken) {
  StreamDecoder decoder = Decoder({"ell"});
  EXPECT_EQ(decoder.Push('>'), ">");
  EXPECT_EQ(decoder.Push(vocab_.Id("hello")), "h");
  EXPECT_TRUE(decoder.stopped());
  EXPECT_EQ(decoder.stop_hit(), "ell");
  EXPECT_EQ(decoder.Push('x'), "");
  EXPECT_EQ(decoder.Finish(), "");
}

TEST_F(StreamDecoderTest, AtTheVeryStart) {
  EXPECT_EQ(All("STOPabc", {"STOP"}), "|STOP");
}

TEST_F(StreamDecoderTest, OverlappingStopStrings) {
  // The first that is complete, whichever began first.
  EXPECT_EQ(All("aabcd", {"abcd", "bc"}), "aa|bc");
  // Of two that end together, the longer.
  EXPECT_EQ(All("xabcd", {"cd", "abcd", "d"}), "x|abcd");
  EXPECT_EQ(All("xabcd", {"d", "bcd"}), "xa|bcd");
  // A restart inside a partial match.
  EXPECT_EQ(All("aaab.", {"aab"}), "a|aab");
  EXPECT_EQ(All("ababac.", {"abac"}), "ab|abac");
  EXPECT_EQ(All("no match", {"", "xyz"}), "no match");
}

TEST_F(StreamDecoderTest, AStopStringMayCutACharacter) {
  // The text ends before it, so half of the character is left.
  EXPECT_EQ(All("é!", {"\xA9"}), kBad + "|\xA9");
  EXPECT_EQ(All("🦙🦙", {"🦙"}), "|🦙");
  EXPECT_EQ(All("aé", {"é"}), "a|é");
}

TEST_F(StreamDecoderTest, HoldsBackNoMoreThanItMust) {
  StreamDecoder decoder = Decoder({"\n\nHuman:", "###"});
  const std::string text = "one\n\nHuman beings # ## and\n\n\nHum";
  std::string all;
  size_t fed = 0;
  for (const TokenId token : Bytes(text)) {
    all += decoder.Push(token);
    ++fed;
    const std::string rest = text.substr(all.size(), fed - all.size());
    EXPECT_TRUE(std::string("\n\nHuman:").starts_with(rest) || std::string("###").starts_with(rest))
        << "holds back \"" << rest << "\"";
  }
  EXPECT_EQ(all + decoder.Finish(), text);
}

// Against the obvious way: all of the text, searched as a whole.
TEST_F(StreamDecoderTest, SaysWhatASearchOfTheWholeTextSays) {
  std::mt19937 random(3);  // NOLINT: the same on each run
  int stopped = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (size_t size = random() % 30; size > 0; --size) text += "aab\xC3\xA9."[random() % 6];
    Strings stop;
    for (size_t count = random() % 4; count > 0; --count) {
      std::string one;
      for (size_t size = 1 + random() % 4; size > 0; --size) one += "aab\xC3\xA9."[random() % 6];
      stop.push_back(one);
    }
    size_t end = std::string::npos;  // of the first complete stop string
    std::string hit;
    for (const std::string& one : stop) {
      const size_t at = text.find(one);
      if (at == std::string::npos) continue;
      const size_t its_end = at + one.size();
      if (its_end < end || (its_end == end && one.size() > hit.size())) {
        end = its_end;
        hit = one;
      }
    }
    std::string expected;
    Utf8Repair repair;
    repair.Feed(hit.empty() ? text : text.substr(0, end - hit.size()), expected);
    repair.Finish(expected);
    if (!hit.empty()) expected += "|" + hit;
    EXPECT_EQ(All(text, stop), expected);
    stopped += hit.empty() ? 0 : 1;
  }
  EXPECT_GT(stopped, 500);
}

}  // namespace
}  // namespace trellis
