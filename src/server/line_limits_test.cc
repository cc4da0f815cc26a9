#include "server/line_limits.h"

#include <gtest/gtest.h>

#include <vector>

namespace trellis {
namespace {

using End = LineLimits::End;
using std::chrono::milliseconds;

// A piece of text, and when it comes.
struct Piece {
  std::string text;
  int ms = 0;
};

struct Taken {
  std::string text;
  End end = End::kNo;
};

Taken TakeAll(LineLimits limits, const std::vector<Piece>& pieces) {
  Taken taken;
  for (Piece piece : pieces) {
    const LineLimits::Clock::time_point now{milliseconds(1000 + piece.ms)};
    taken.end = limits.Take(&piece.text, now);
    taken.text += piece.text;
    if (taken.end != End::kNo) break;
  }
  return taken;
}

std::string Indented(size_t min_indent, const std::vector<Piece>& pieces) {
  const Taken taken = TakeAll(LineLimits(milliseconds(0), min_indent), pieces);
  return taken.text + (taken.end == End::kWithin ? "|" : "");
}

TEST(LineLimitsTest, TimeEndsAtALineEnd) {
  const LineLimits limits(milliseconds(10), 0);
  // Time begins with the first token, which may have no text yet.
  EXPECT_EQ(TakeAll(limits, {{"", 500}, {"a\n", 510}, {"b", 600}, {"c", 700}}).end, End::kNo);
  const Taken taken = TakeAll(limits, {{"a", 0}, {"b", 50}, {"c\n  d", 60}, {"e\n", 70}});
  EXPECT_EQ(taken.text, "abc\n  d");
  EXPECT_EQ(taken.end, End::kAfter);
  EXPECT_EQ(TakeAll(LineLimits(milliseconds(0), 0), {{"a", 0}, {"\n", 9000}}).end, End::kNo);
}

TEST(LineLimitsTest, ALineThatIsIndentedLessIsNotPartOfIt) {
  EXPECT_EQ(Indented(2, {{"a\n  b\n c\n   d"}}), "a\n  b\n |");
  EXPECT_EQ(Indented(2, {{"a\n"}, {" "}, {"\t"}, {"b\n"}, {" "}, {"c"}}), "a\n \tb\n |");
  EXPECT_EQ(Indented(2, {{"a"}, {"\n\n  b"}}), "a\n|") << "an empty line";
  EXPECT_EQ(Indented(2, {{"a\n  \n  b"}}), "a\n  \n  b");
  EXPECT_EQ(Indented(0, {{"a\n\nb\n c"}}), "a\n\nb\n c");
}

}  // namespace
}  // namespace trellis
