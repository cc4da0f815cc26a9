#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>

#include "text/test_vocab.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

TestVocab Chatty() {
  TestVocab vocab = ByteVocab({{"<s>", TokenType::kControl},
                               {"</s>", TokenType::kControl},
                               {"<mark>", TokenType::kUserDefined}});
  vocab.bos = vocab.Id("<s>");
  vocab.eos = vocab.Id("</s>");
  return vocab;
}

TEST(TokenizerTest, SpecialTokensAreParsedOrNot) {
  const TestVocab vocab = Chatty();
  const auto tokenizer = Load(vocab);
  const auto encode = [&](const char* text, SpecialTokens special) {
    return tokenizer->Encode(text, AddSpecial::kNo, special);
  };
  const TokenId hello = vocab.Id("hello"), s = vocab.Id("<s>"), mark = vocab.Id("<mark>");
  EXPECT_EQ(encode("<s>hello", SpecialTokens::kParse), (Tokens{s, hello}));
  EXPECT_EQ(encode("<s>hello", SpecialTokens::kAsText), (Tokens{'<', 's', '>', hello}));
  // As in libllama, user-defined tokens are taken from any text.
  EXPECT_EQ(encode("hello<mark>hello", SpecialTokens::kAsText), (Tokens{hello, mark, hello}));
}

TEST(TokenizerTest, AddsWhatTheVocabularyAsksFor) {
  TestVocab vocab = Chatty();
  for (const bool bos : {false, true}) {
    for (const bool eos : {false, true}) {
      vocab.add_bos = bos;
      vocab.add_eos = eos;
      const auto tokenizer = Load(vocab);
      EXPECT_EQ(tokenizer->AddsBos(), bos);
      EXPECT_EQ(tokenizer->AddsEos(), eos);
      Tokens expected = {vocab.Id("hello")};
      EXPECT_EQ(tokenizer->Encode("hello", AddSpecial::kNo, SpecialTokens::kParse), expected);
      if (bos) expected.insert(expected.begin(), vocab.bos);
      if (eos) expected.push_back(vocab.eos);
      EXPECT_EQ(tokenizer->Encode("hello", AddSpecial::kByVocabulary, SpecialTokens::kParse),
                expected);
    }
  }
}

TEST(TokenizerTest, PiecesAreTheBytes) {
  const TestVocab vocab = Chatty();
  const auto tokenizer = Load(vocab);
  EXPECT_EQ(tokenizer->longest_piece(), 6u);  // <mark>
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer->Piece(byte, SpecialTokens::kAsText),
              std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(tokenizer->Piece(vocab.bos, SpecialTokens::kParse), "<s>");
  EXPECT_EQ(tokenizer->Piece(vocab.bos, SpecialTokens::kAsText), "");
  EXPECT_EQ(tokenizer->Piece(-1, SpecialTokens::kParse), "");
  EXPECT_EQ(tokenizer->Piece(1 << 30, SpecialTokens::kParse), "");
  EXPECT_EQ(
      tokenizer->Decode({vocab.bos, vocab.Id("hello"), '!', -7, 1 << 30}, SpecialTokens::kAsText),
      "hello!");
}

TEST(TokenizerTest, EndsAndSuppressedTokensComeFromTheFile) {
  TestVocab vocab = Chatty();
  vocab.suppressed = {5, vocab.Id("<mark>"), 1 << 29, -3};
  const auto tokenizer = Load(vocab);
  EXPECT_TRUE(tokenizer->IsEndOfGeneration(vocab.eos));
  EXPECT_FALSE(tokenizer->IsEndOfGeneration(vocab.Id("hello")));
  // Ids outside the vocabulary are dropped, as llama.cpp does.
  EXPECT_EQ(tokenizer->suppressed(), (Tokens{5, vocab.Id("<mark>")}));
  EXPECT_TRUE(Load(Chatty())->suppressed().empty());
}

TEST(TokenizerTest, SentencePieceFallsBackToBytes) {
  TestVocab vocab = PieceVocab({{"<s>", TokenType::kControl}});
  vocab.bos = vocab.Id("<s>");
  const auto tokenizer = Load(vocab);
  const Tokens tokens =
      tokenizer->Encode("hello é<s>hello", AddSpecial::kNo, SpecialTokens::kParse);
  EXPECT_EQ(tokens, (Tokens{vocab.Id("▁hello"), vocab.Id("▁"), vocab.Id("<0xC3>"),
                            vocab.Id("<0xA9>"), vocab.bos, vocab.Id("▁hello")}));
  EXPECT_EQ(tokenizer->Decode(tokens, SpecialTokens::kParse), "hello é<s> hello");
}

// llama.cpp splits the text of some vocabularies by std::regex, which recurses.
TEST(TokenizerTest, WordsWithoutEndAreNoTrouble) {
  TestVocab vocab = Chatty();
  for (const char* pre : {"default", "llama3", "qwen2", "deepseek-llm", "deepseek-coder",
                          "deepseek-v3", "falcon", "poro-chat", "tekken", "gpt-4o"}) {
    vocab.pre = pre;
    const auto loaded = TryLoad(vocab);
    ASSERT_TRUE(loaded.ok()) << pre << ": " << loaded.status().message();
    for (const char* unit : {"a", "1", "!", " ", "漢"}) {
      std::string text;
      while (text.size() < 150'000) text += unit;
      const Tokens tokens = (*loaded)->Encode(text, AddSpecial::kNo, SpecialTokens::kParse);
      EXPECT_EQ((*loaded)->Decode(tokens, SpecialTokens::kParse), text) << pre << unit;
    }
  }
}

TEST(TokenizerTest, WhatTheVocabularyLacksIsLeftOut) {
  TestVocab vocab;
  vocab.tokens = {{"a"}, {"b"}, {"<x>", TokenType::kControl}};
  vocab.merges = {};
  const auto tokenizer = Load(vocab);
  EXPECT_EQ(tokenizer->Encode("a?b<x>é", AddSpecial::kNo, SpecialTokens::kParse),
            (Tokens{0, 1, 2}));
}

TEST(TokenizerTest, SaysWhatIsWrongWithAFile) {
  const auto message = [](const Result<std::unique_ptr<Tokenizer>>& loaded) {
    return loaded.ok() ? "it loaded" : loaded.status().message();
  };
  auto missing = Tokenizer::Load("/nowhere/x.gguf");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);

  const std::string garbage = testing::TempDir() + "garbage-" + std::to_string(getpid());
  std::ofstream(garbage) << "not a GGUF file";
  auto unreadable = Tokenizer::Load(garbage);
  std::remove(garbage.c_str());
  ASSERT_FALSE(unreadable.ok());
  EXPECT_EQ(unreadable.status().code(), StatusCode::kDataLoss);

  TestVocab twice = Chatty();
  twice.tokens.push_back({"hello"});
  EXPECT_NE(message(TryLoad(twice)).find("'hello' twice"), std::string::npos)
      << message(TryLoad(twice));
  TestVocab unknown = Chatty();
  unknown.model = "bert";
  EXPECT_EQ(TryLoad(unknown).status().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace trellis
