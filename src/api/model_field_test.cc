#include "api/model_field.h"

#include <gtest/gtest.h>

#include <string>

namespace trellis {
namespace {

std::string NameIn(const std::string& body) {
  ApiResult<std::string> name = ModelNamedIn(body);
  return name.ok() ? name.value() : name.error().message;
}

TEST(ModelFieldTest, IsThatOfTheOutermostObject) {
  EXPECT_EQ(NameIn(R"({"model": "a", "messages": []})"), "a");
  EXPECT_EQ(NameIn(R"({"options": {"model": "b"}, "list": [{"model": "c"}], "model": "a"})"), "a");
  EXPECT_EQ(NameIn(R"({"a": "model", "list": ["model", "x"]})"), "");
  EXPECT_EQ(NameIn(R"({"mod\u0065l": "\u00e4"})"), "\xC3\xA4");
}

TEST(ModelFieldTest, MayBeMissing) {
  EXPECT_EQ(NameIn(""), "");
  EXPECT_EQ(NameIn("null"), "");
  EXPECT_EQ(NameIn("{}"), "");
  EXPECT_EQ(NameIn(R"({"model": null})"), "");
}

TEST(ModelFieldTest, WhatIsWrongIsAnError) {
  EXPECT_EQ(NameIn(R"({"model": 3})"), "model must be a string, not a number");
  EXPECT_EQ(NameIn(R"({"model": {"name": "a"}})"), "model must be a string, not an object");
  EXPECT_EQ(NameIn(R"({"model": [true]})"), "model must be a string, not an array");
  EXPECT_EQ(NameIn(R"({"model": true})"), "model must be a string, not a boolean");
  for (const std::string body : {"3", "[]", R"(["model"])", R"("model")"}) {
    EXPECT_NE(NameIn(body).find("the body must be an object"), std::string::npos) << body;
  }
  for (const std::string body : {"{", "x", R"({"model" "a"})", R"({"a": 1)", "{\"a\": \"\xff\"}"}) {
    EXPECT_FALSE(ModelNamedIn(body).ok()) << body;
  }
  EXPECT_FALSE(ModelNamedIn(std::string(100, '[')).ok());
}

TEST(ModelFieldTest, NothingBehindItIsRead) {
  EXPECT_EQ(NameIn(R"({"model": "a", what comes then)"), "a");
}

TEST(ModelFieldTest, SaysWhetherAStreamIsAskedFor) {
  EXPECT_TRUE(AsksForStream(R"({"messages": [{"stream": false}], "stream": true})"));
  EXPECT_FALSE(AsksForStream(R"({"options": {"stream": true}})"));
  EXPECT_FALSE(AsksForStream(R"({"stream": "true"})"));
  EXPECT_FALSE(AsksForStream(R"({"stream": 1})"));
  EXPECT_FALSE(AsksForStream("{"));
}

}  // namespace
}  // namespace trellis
