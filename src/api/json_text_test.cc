#include "api/json_text.h"

#include <gtest/gtest.h>

#include <string>

namespace trellis {
namespace {

TEST(ParseJsonTest, SaysWhereItStopsBeingJson) {
  auto parsed = ParseJson("{\"a\": 1,\n \"b\" 2}");
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, "invalid_json");
  EXPECT_EQ(parsed.error().http_status, 400);
  EXPECT_NE(parsed.error().message.find("line 2, column 6"), std::string::npos)
      << parsed.error().message;
}

TEST(ParseJsonTest, RefusesWhatIsNotJson) {
  const std::string cases[] = {"",
                               " ",
                               "{",
                               "nul",
                               "{\"a\":}",
                               "[1,]",
                               "1 2",
                               "{'a':1}",
                               "\"\xff\"",
                               "\"\xc0\xaf\"",
                               "\"\\ud800\"",
                               "1e99999",
                               "\"a",
                               "{\"a\":1}x",
                               std::string("\0", 1)};
  for (const std::string& text : cases) {
    auto parsed = ParseJson(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.error().code, "invalid_json") << text;
    EXPECT_TRUE(IsValidUtf8(parsed.error().message)) << text;
  }
}

TEST(ParseJsonTest, AnErrorIsShortHoweverLongTheBody) {
  const auto parsed = ParseJson("{\"a\":\"" + std::string(100'000, 'x'));
  ASSERT_FALSE(parsed.ok());
  EXPECT_LT(parsed.error().message.size(), 400u);
  EXPECT_NE(parsed.error().message.find("column"), std::string::npos);
}

TEST(ParseJsonTest, DepthIsLimitedBeforeParsing) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(ParseJson(nested(kMaxJsonDepth)).ok());
  auto parsed = ParseJson(nested(kMaxJsonDepth + 1));
  ASSERT_FALSE(parsed.ok());
  EXPECT_EQ(parsed.error().code, "json_too_deep");
  // Not even closed; and a size that would overflow a recursive parser's stack.
  EXPECT_EQ(ParseJson(std::string(4 << 20, '[')).error().code, "json_too_deep");
  std::string objects;
  for (int i = 0; i < 1 << 20; i++) objects += "{\"a\":";
  EXPECT_EQ(ParseJson(objects).error().code, "json_too_deep");
}

TEST(NestingDepthTest, BracketsInStringsDoNotCount) {
  EXPECT_EQ(NestingDepth(R"({"a":"[[[{{{","b":["\"[["]})"), 2u);
  EXPECT_EQ(NestingDepth(R"("\\")"), 0u);
  EXPECT_EQ(NestingDepth(R"(["\\",[]])"), 2u);
  EXPECT_EQ(NestingDepth("]]]]["), 1u);
}

TEST(Utf8Test, ReplacesWhatIsNoSequence) {
  EXPECT_EQ(ValidUtf8("aé漢😀"), "aé漢😀");
  EXPECT_EQ(ValidUtf8("a\xe2\x82"), "a\xEF\xBF\xBD");
  EXPECT_EQ(ValidUtf8("\xed\xa0\x80").substr(0, 3), "\xEF\xBF\xBD");  // a surrogate
  EXPECT_EQ(ValidUtf8("\xf4\x90\x80\x80").substr(0, 3), "\xEF\xBF\xBD");
  EXPECT_FALSE(IsValidUtf8("\xc0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xf8\x88\x80\x80\x80"));
  EXPECT_TRUE(IsValidUtf8(std::string("\0", 1)));
  EXPECT_TRUE(IsValidUtf8("\xf4\x8f\xbf\xbf"));
}

TEST(ToTextTest, IsAlwaysValid) {
  const std::string text = ToText({{"a", "x\xff y"}});
  EXPECT_TRUE(IsValidUtf8(text));
  EXPECT_TRUE(ParseJson(text).ok()) << text;
}

TEST(RawMemberTest, IsTheTextAsItWasWritten) {
  const auto raw = [](const char* text, const char* name) {
    EXPECT_TRUE(ParseJson(text).ok()) << text;
    return std::string(RawMember(text, name));
  };
  EXPECT_EQ(raw(R"({"a":1,"b":[2, {"a":3}],"c":null})", "a"), "1");
  EXPECT_EQ(raw(R"({"a":1,"b":[2, {"a":3}],"c":null})", "b"), R"([2, {"a":3}])");
  EXPECT_EQ(raw(R"({"a":1,"b":[2, {"a":3}],"c":null})", "c"), "null");
  EXPECT_EQ(raw(R"({"a":1,"b":{"x":1}})", "x"), "");
  EXPECT_EQ(raw(" \n{ \"a\" :\t\"x\\\"}]\\\\\" , \"b\" : -1.5e3 } ", "a"), R"("x\"}]\\")");
  EXPECT_EQ(raw(" \n{ \"a\" :\t\"x\\\"}]\\\\\" , \"b\" : -1.5e3 } ", "b"), "-1.5e3");
  EXPECT_EQ(raw(R"({"\u0061":true,"":{}})", "a"), "true");
  EXPECT_EQ(raw(R"({"\u0061":true,"":{}})", ""), "{}");
  EXPECT_EQ(raw(R"({"a":1,"a":2})", "a"), "2");
  EXPECT_EQ(raw("{}", "a"), "");
}

}  // namespace
}  // namespace trellis
