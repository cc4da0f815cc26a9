#include "text/grammar.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "text/test_vocab.h"

namespace trellis {
namespace {

class GrammarTest : public testing::Test {
 protected:
  GrammarTest() : vocab_(ByteVocab({{"</s>", TokenType::kControl}})) {
    vocab_.eos = vocab_.Id("</s>");
    tokenizer_ = Load(vocab_);
  }

  GrammarState Start(const std::string& gbnf) const { return Start(GrammarSource{gbnf}); }
  GrammarState Start(const GrammarSource& source) const {
    auto grammar = Grammar::Parse(*tokenizer_, source);
    EXPECT_TRUE(grammar.ok()) << grammar.status().message();
    return GrammarState(*grammar);
  }
  GrammarState StartSchema(const std::string& schema) const {
    auto grammar = Grammar::OfJsonSchema(*tokenizer_, schema);
    EXPECT_TRUE(grammar.ok()) << grammar.status().message();
    return GrammarState(*grammar);
  }
  std::string Refusal(const std::string& gbnf) const {
    auto grammar = Grammar::Parse(*tokenizer_, {gbnf});
    return grammar.ok() ? "" : grammar.status().message();
  }

  // What may come next: the pieces of all tokens that Ban leaves, which Allows allows, too; "END"
  // for the end.
  std::set<std::string> Next(const GrammarState& state) const {
    std::vector<float> logits(vocab_.tokens.size(), 1.0f);
    EXPECT_TRUE(state.Ban(logits).ok());
    std::set<std::string> next;
    for (size_t i = 0; i < logits.size(); i++) {
      const auto token = static_cast<TokenId>(i);
      EXPECT_EQ(std::isfinite(logits[i]), state.Allows(token).value()) << i;
      if (!std::isfinite(logits[i])) continue;
      next.insert(token == vocab_.eos ? "END" : tokenizer_->Piece(token, SpecialTokens::kParse));
    }
    return next;
  }
  // Token by token, of bytes; false where one is not allowed.
  bool Write(GrammarState& state, const std::string& text) const {
    for (const char c : text) {
      const auto token = static_cast<TokenId>(static_cast<unsigned char>(c));
      if (!state.Allows(token).value()) return false;
      EXPECT_TRUE(state.Accept(token).ok());
    }
    return true;
  }
  bool MayEnd(const GrammarState& state) const { return state.Allows(vocab_.eos).value(); }
  bool Matches(const std::string& gbnf, const std::string& text) const {
    GrammarState state = Start(gbnf);
    return Write(state, text) && MayEnd(state);
  }
  bool Accepts(const std::string& schema, const std::string& json) const {
    GrammarState state = StartSchema(schema);
    return Write(state, json) && MayEnd(state);
  }

  TestVocab vocab_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(GrammarTest, SaysWhatMayComeNext) {
  using Pieces = std::set<std::string>;
  GrammarState state = Start(R"(root ::= "hello" | "hey" | "")");
  EXPECT_EQ(Next(state), (Pieces{"h", "he", "hell", "hello", "END"}));
  ASSERT_TRUE(state.Accept(vocab_.Id("he")).ok());
  EXPECT_EQ(Next(state), (Pieces{"l", "ll", "y"}));
  ASSERT_TRUE(Write(state, "y"));
  EXPECT_EQ(Next(state), Pieces{"END"});
  EXPECT_TRUE(state.Accept(vocab_.eos).ok());
}

TEST_F(GrammarTest, StatesOfOneGrammarAreApart) {
  auto grammar = Grammar::Parse(*tokenizer_, {R"(root ::= "a"+ "b")"});
  ASSERT_TRUE(grammar.ok());
  GrammarState one(*grammar), other(*grammar);
  grammar->reset();
  EXPECT_TRUE(Write(one, "aab"));
  EXPECT_EQ(Next(one), std::set<std::string>{"END"});
  EXPECT_EQ(Next(other), std::set<std::string>{"a"});
}

TEST_F(GrammarTest, HoldsFromItsTriggerOn) {
  for (const GrammarSource& source :
       {GrammarSource{.gbnf = R"(root ::= "<c>" [0-9]+ "</c>")", .trigger_words = {"<x>", "<c>"}},
        GrammarSource{.gbnf = R"(root ::= "<c>" [0-9]+ "</c>")",
        .trigger_patterns = {"a *(<c>)"}}}) {
    GrammarState state = Start(source);
    EXPECT_TRUE(MayEnd(state));
    ASSERT_TRUE(Write(state, "anything <c</c> a <"));
    EXPECT_EQ(Next(state).size(), vocab_.tokens.size());
    ASSERT_TRUE(Write(state, "c>"));
    EXPECT_FALSE(MayEnd(state));
    EXPECT_FALSE(Write(state, "x"));
    EXPECT_TRUE(Write(state, "42</c>"));
    EXPECT_EQ(Next(state), std::set<std::string>{"END"});
  }
}

TEST_F(GrammarTest, ThePromptMayHaveBegunIt) {
  const char* gbnf = R"(root ::= "hello" " " "you")";
  GrammarState state = Start(GrammarSource{.gbnf = gbnf, .prefix = "hell"});
  EXPECT_TRUE(Write(state, "o you"));
  EXPECT_FALSE(Grammar::Parse(*tokenizer_, {.gbnf = gbnf, .prefix = "help"}).ok());
}

TEST_F(GrammarTest, CharactersOfSeveralBytes) {
  const char* gbnf = "root ::= [а-я]+ \"→\"";
  EXPECT_TRUE(Matches(gbnf, "рыба→"));
  EXPECT_FALSE(Matches(gbnf, "рыbа→"));
  EXPECT_FALSE(Matches(gbnf, "→"));
  GrammarState state = Start(gbnf);
  EXPECT_EQ(Next(state), (std::set<std::string>{"\xD0", "\xD1"}));
}

TEST_F(GrammarTest, JsonOfASchemaAndNoOther) {
  const char* schema = R"({"type":"object","properties":{
      "name":{"type":"string","maxLength":5},"age":{"type":"integer","minimum":0,"maximum":150},
      "tags":{"type":"array","items":{"enum":["a","b"]},"minItems":1,"maxItems":2},
      "at":{"anyOf":[{"type":"null"},{"$ref":"#/$defs/place"}]}},
    "required":["name","age"],"additionalProperties":false,
    "$defs":{"place":{"type":"string","pattern":"^[A-Z]{2}$"}}})";
  for (const char* good :
       {R"({"name": "Ada", "age": 36})", R"({"name":"Ada","age":36,"tags":["a","b"],"at":"UK"})",
        R"({ "name": "", "age": 0, "at": null })"}) {
    EXPECT_TRUE(Accepts(schema, good)) << good;
  }
  for (const char* bad :
       {"[]", R"({"name": "Ada"})", R"({"age": 36, "name": "Ada"})",
        R"({"name": "Ada", "age": 151})", R"({"name": "Ada B.", "age": 1})",
        R"({"name": "Ada", "age": 1, "tags": []})", R"({"name": "Ada", "age": 1, "tags": ["c"]})",
        R"({"name": "Ada", "age": 1, "at": "uk"})", R"({"name": "Ada", "age": 1, "more": 1})",
        R"({"name": "Ada", "age": 01})"}) {
    EXPECT_FALSE(Accepts(schema, bad)) << bad;
  }
}

TEST_F(GrammarTest, WhatIsWrongIsSaid) {
  EXPECT_NE(Refusal("").find("empty"), std::string::npos) << Refusal("");
  EXPECT_NE(Refusal("a ::= \"b\"").find("'root'"), std::string::npos);
  EXPECT_NE(Refusal("root ::= [a").find("unexpected end"), std::string::npos);
  EXPECT_NE(Refusal("root ::= other").find("'other'"), std::string::npos);
  EXPECT_NE(Refusal("root ::= root \"a\"").find("left recursion"), std::string::npos);
  EXPECT_LT(Refusal("root = " + std::string(100000, 'x')).size(), 500u);
  const auto schema = Grammar::OfJsonSchema(*tokenizer_, R"({"type":"strong"})");
  ASSERT_FALSE(schema.ok());
  EXPECT_NE(schema.status().message().find("strong"), std::string::npos);
  // No grammar can say it: it is not let go as any text.
  EXPECT_FALSE(
      Grammar::OfJsonSchema(*tokenizer_, R"({"type":"string","pattern":"^(?=a).*$"})").ok());
}

TEST_F(GrammarTest, HostileOnesAreRefused) {
  EXPECT_NE(Refusal("root ::= " + std::string(200000, '(')).find("nested too deep"),
            std::string::npos);
  std::string chain = "root ::= r0\n", doubling = "root ::= r0\n", growing = "root ::= ";
  for (int i = 0; i < 20000; i++) chain += fmt::format("r{} ::= r{}\n", i, i + 1);
  chain += "r20000 ::= \"a\"\n";
  EXPECT_NE(Refusal(chain).find("nested too deep"), std::string::npos);
  for (int i = 0; i < 60; i++)
    doubling += fmt::format("r{} ::= r{} | r{} \"x\"\n", i, i + 1, i + 1);
  doubling += "r60 ::= \"a\"\n";
  EXPECT_NE(Refusal(doubling).find("too long"), std::string::npos);
  for (int i = 0; i < 10000; i++) growing += "\"a\"{2000} ";
  EXPECT_NE(Refusal(growing).find("too much"), std::string::npos);
}

TEST_F(GrammarTest, NothingIsThereMoreTimesAtLeastThanAtMost) {
  for (const std::string text : {R"("y"{5,3})", R"("y"{ 5 , 3 })", R"(("x" | [a-f\]]){1,0})"})
    EXPECT_NE(Refusal("root ::= " + text).find("more times at least"), std::string::npos) << text;
  for (const std::string text : {R"("y"{3,5})", R"("y"{3})", R"("y"{3,})", R"("{5,3}\"{5,3}")",
                                 R"([{5,3}])", "\"y\" # {5,3}\n"}) {
    EXPECT_TRUE(Grammar::Parse(*tokenizer_, {.gbnf = "root ::= " + text}).ok()) << text;
  }
}

// r refers to itself behind what can only be empty: nothing can follow the x.
TEST_F(GrammarTest, WhatCannotGoOnAllowsNothing) {
  GrammarState state = Start("root ::= \"x\" r\nr ::= b r\nb ::= c\nc ::= \"\"");
  for (const char c : {'x', 'y'}) {
    const Result<bool> allowed = state.Allows(c);
    EXPECT_TRUE(!allowed.ok() || !*allowed);
  }
}

TEST_F(GrammarTest, HostileSchemasAreRefused) {
  const auto is_refused = [&](const std::string& schema) {
    return !Grammar::OfJsonSchema(*tokenizer_, schema).ok();
  };
  EXPECT_TRUE(is_refused(R"({"allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}})"));
  std::string doubling = R"({"type":"string"})", wide = R"({"type":"object","properties":{)";
  for (int i = 0; i < 30; i++)
    doubling = R"({"type":["object","object"],"properties":{"a":)" + doubling + "}}";
  EXPECT_TRUE(is_refused(doubling));
  for (int i = 0; i < 20000; i++) wide += fmt::format("\"a{}\":{{}},", i);
  EXPECT_TRUE(is_refused(wide + R"("z":{}}})"));
  EXPECT_TRUE(is_refused(R"({"type":"object","properties":{")" + std::string(100000, 'k') +
                         R"(":{}},"additionalProperties":{}})"));
  EXPECT_TRUE(is_refused(R"({"type":"string","pattern":"^)" + std::string(100000, '(') + R"($"})"));
}

// One that is fine at first, and then has twice as many ways to go on with each character.
TEST_F(GrammarTest, OneThatTakesTooLongForATokenIsAnError) {
  std::string gbnf = "root ::= \"a\" r0\n";
  for (int i = 0; i < 17; i++) gbnf += fmt::format("r{0} ::= r{1} \"x\" | r{1} \"y\"\n", i, i + 1);
  GrammarState state = Start(gbnf + "r17 ::= \"b\"");
  Status status;
  for (int i = 0; i < 200 && status.ok(); i++) {
    const Result<bool> allowed = state.Allows('a');
    status = allowed.ok() ? state.Accept('a') : allowed.status();
  }
  EXPECT_NE(status.message().find("the grammar"), std::string::npos) << status.message();
}

TEST_F(GrammarTest, WhateverIsChosenOfWhatIsAllowedEndsAsTheGrammarWants) {
  const char* gbnf = R"(root ::= "[" (item ("," item){0,3})? "]"
                        item ::= "hello" | [0-9]{1,3} | "[" item "]")";
  std::mt19937 random(1);
  for (int run = 0; run < 200; run++) {
    GrammarState state = Start(gbnf);
    std::string text;
    for (int i = 0; i < 200; i++) {
      std::vector<float> logits(vocab_.tokens.size(), 0.0f);
      ASSERT_TRUE(state.Ban(logits).ok());
      std::vector<TokenId> allowed;
      for (size_t t = 0; t < logits.size(); t++) {
        if (std::isfinite(logits[t])) allowed.push_back(static_cast<TokenId>(t));
      }
      ASSERT_FALSE(allowed.empty()) << text;
      const TokenId token = allowed[random() % allowed.size()];
      ASSERT_TRUE(state.Accept(token).ok());
      if (token == vocab_.eos) break;
      text += tokenizer_->Piece(token, SpecialTokens::kParse);
    }
    EXPECT_TRUE(Matches(gbnf, text) || text.size() > 190) << text;
  }
}

}  // namespace
}  // namespace trellis
