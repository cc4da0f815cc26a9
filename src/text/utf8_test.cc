#include "text/utf8.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>
#include <vector>

namespace trellis {
namespace {

const std::string kBad = "\xEF\xBF\xBD";

// All at once, or in pieces of `step` bytes.
std::string Repair(const std::string& bytes, size_t step = 1000) {
  Utf8Repair repair;
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += step) repair.Feed(bytes.substr(i, step), out);
  repair.Finish(out);
  return out;
}

TEST(Utf8RepairTest, ValidTextStaysAsItIs) {
  for (const std::string text : {"", "abc", "é漢🦙", "\u007f\u0080\u07ff\u0800\uffff",
                                 "\U00010000\U0010ffff", "\ufffd"}) {
    EXPECT_EQ(Repair(text), text);
    EXPECT_EQ(Repair(text, 1), text);
  }
}

// The examples of the Unicode standard, chapter 3, tables 3-8 to 3-11, and more.
TEST(Utf8RepairTest, EachMaximalPartBecomesOneReplacement) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
       "A",
       kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF"
       "A",
       kBad + kBad + kBad + kBad + kBad + kBad + kBad + kBad + "A"},
      {"\xF4\x91\x92\x93\xFF"
       "A\x80\xBF"
       "B",
       kBad + kBad + kBad + kBad + kBad + "A" + kBad + kBad + "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       kBad + kBad + kBad + kBad + "A"},
      {"\xC3", kBad},
      {"\xC3(", kBad + "("},
      {"\xF0\x9F\xA6", kBad},
      {"\xF0\x9F\xA6\xE6\xBC\xA2", kBad + "漢"},
      {"\xC3\xC3\xA9", kBad + "é"},
  };
  for (const auto& [bytes, text] : cases) {
    for (size_t step = 1; step <= bytes.size(); ++step) EXPECT_EQ(Repair(bytes, step), text);
  }
}

TEST(Utf8RepairTest, TheCutMakesNoDifference) {
  std::mt19937 random(7);  // NOLINT: the same on each run
  const std::string alphabet = "a\x80\xBF\xC3\xA9\xE6\xBC\xA2\xED\xA0\xF0\x9F\xA6\x99\xF4\x90\xFF";
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    for (int size = 0; size < 12; ++size) bytes += alphabet[random() % alphabet.size()];
    const std::string whole = Repair(bytes);
    for (size_t step = 1; step < 5; ++step) EXPECT_EQ(Repair(bytes, step), whole);
    EXPECT_EQ(Repair(whole), whole);  // it is valid
  }
}

TEST(Utf8LengthTest, CountsBytesOfTheFirstCharacter) {
  EXPECT_EQ(Utf8Length("ab"), 1u);
  EXPECT_EQ(Utf8Length("éa"), 2u);
  EXPECT_EQ(Utf8Length("漢a"), 3u);
  EXPECT_EQ(Utf8Length("🦙a"), 4u);
  EXPECT_EQ(Utf8Length("\xF0\x9F\xA6"), 1u);
  EXPECT_EQ(Utf8Length("\xFFx"), 1u);
}

}  // namespace
}  // namespace trellis
