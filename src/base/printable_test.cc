#include "base/printable.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

TEST(PrintableTest, ControlsAreQuestionMarks) {
  EXPECT_EQ(Printable("\x1B[2Jname\r\a\x7F"), "?[2Jname???");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31mred"),
            "??31mred");
}

TEST(PrintableTest, AllElseStays) {
  EXPECT_EQ(Printable("two\nlines, \xC3\xA9, \xC2\xA0, \xF0\x9F\x99\x82"),
            "two\nlines, \xC3\xA9, \xC2\xA0, \xF0\x9F\x99\x82");
  EXPECT_EQ(Printable("cut \xC2"), "cut \xC2");
  EXPECT_EQ(Printable(""), "");
}

}  // namespace
}  // namespace trellis
