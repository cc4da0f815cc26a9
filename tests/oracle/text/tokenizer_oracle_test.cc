// Tokens, pieces and text, the same as libllama's, for whole models and for the vocabularies that
// come with llama.cpp's source, whose expected tokens were made by the models' original tokenizers.
#include <gtest/gtest.h>

#include <memory>
#include <sstream>

#include "corpus.h"
#include "support/model_files.h"
#include "text/tokenizer.h"
#include "text_oracle.h"

namespace trellis {
namespace {

struct Vocabulary {
  const char* name;
  const char* file;  // a real model's, or one of llama.cpp's own
};

std::string PathOf(const Vocabulary& vocabulary) {
  const std::string file = vocabulary.file;
  return file.rfind("ggml-vocab-", 0) == 0 ? std::string(LLAMA_SOURCE) + "/models/" + file
                                           : RealModelPath(file);
}

const Vocabulary kVocabularies[] = {
    {"SmolLM2", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"Qwen25Coder", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"},
    {"Gemma3", "gemma-3-270m-q4_k_m.gguf"},
    {"LlamaSpm", "ggml-vocab-llama-spm.gguf"},
    {"LlamaBpe", "ggml-vocab-llama-bpe.gguf"},
    {"Phi3", "ggml-vocab-phi-3.gguf"},
    {"Qwen35", "ggml-vocab-qwen35.gguf"},
    {"Gemma4", "ggml-vocab-gemma-4.gguf"},
    {"DeepseekLlm", "ggml-vocab-deepseek-llm.gguf"},
    {"DeepseekCoder", "ggml-vocab-deepseek-coder.gguf"},
    {"Falcon", "ggml-vocab-falcon.gguf"},
    {"Starcoder", "ggml-vocab-starcoder.gguf"},
    {"CommandR", "ggml-vocab-command-r.gguf"},
    {"Mpt", "ggml-vocab-mpt.gguf"},
};

class TokenizerOracle : public testing::TestWithParam<Vocabulary> {
 protected:
  void SetUp() override {
    auto loaded = Tokenizer::Load(PathOf(GetParam()));
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    tokenizer_ = std::move(loaded).value();
  }
  std::vector<std::string> Ask(const std::vector<std::string>& questions) {
    return AskReference(PathOf(GetParam()), questions);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(TokenizerOracle, EncodesAndDecodesTheCorpus) {
  const std::vector<std::string> corpus = TokenizerCorpus();
  std::vector<std::string> questions;
  for (const std::string& text : corpus) questions.insert(questions.end(), {"text", text});
  const std::vector<std::string> answers = Ask(questions);
  ASSERT_EQ(answers.size(), 6 * corpus.size());
  auto answer = answers.begin();
  int failures = 0;
  size_t thrown = 0;
  for (const std::string& text : corpus) {
    if (*answer == "threw") {  // no tokens to compare with; but ours must not throw
      EXPECT_FALSE(tokenizer_->Encode(text, AddSpecial::kNo, SpecialTokens::kParse).empty());
      thrown++;
      answer += 6;
      continue;
    }
    for (const auto add : {AddSpecial::kNo, AddSpecial::kByVocabulary}) {
      for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
        const std::string mine = JoinTokens(tokenizer_->Encode(text, add, special));
        EXPECT_EQ(mine, *answer++)
            << "of \"" << testing::PrintToString(text) << "\", add_special "
            << static_cast<int>(add) << ", parse_special " << static_cast<int>(special);
        failures += mine != answer[-1];
      }
    }
    const auto tokens = tokenizer_->Encode(text, AddSpecial::kNo, SpecialTokens::kParse);
    EXPECT_EQ(tokenizer_->Decode(tokens, SpecialTokens::kAsText), *answer++);
    EXPECT_EQ(tokenizer_->Decode(tokens, SpecialTokens::kParse), *answer++);
    ASSERT_LT(failures, 5) << "and so on";
  }
  EXPECT_LT(thrown, corpus.size() / 10);
}

TEST_P(TokenizerOracle, KnowsTheSameSpecialTokens) {
  const std::vector<std::string> answers = Ask({"vocab"});
  ASSERT_EQ(answers.size(), 1u);
  std::vector<TokenId> ends;
  for (size_t i = 0; i < tokenizer_->vocab_size(); ++i) {
    const auto token = static_cast<TokenId>(i);
    if (tokenizer_->IsEndOfGeneration(token)) ends.push_back(token);
  }
  EXPECT_EQ(JoinTokens({tokenizer_->bos(), tokenizer_->eos(), tokenizer_->AddsBos(),
                        tokenizer_->AddsEos()}) +
                "\n" + JoinTokens(tokenizer_->suppressed()) + "\n" + JoinTokens(ends) + "\n",
            answers[0]);
}

TEST_P(TokenizerOracle, SpellsEveryTokenTheSame) {
  const std::vector<std::string> answers = Ask({"pieces"});
  ASSERT_EQ(answers.size(), 2 * tokenizer_->vocab_size());
  for (size_t i = 0; i < tokenizer_->vocab_size(); ++i) {
    const auto token = static_cast<TokenId>(i);
    ASSERT_EQ(tokenizer_->Piece(token, SpecialTokens::kAsText), answers[2 * i]) << token;
    ASSERT_EQ(tokenizer_->Piece(token, SpecialTokens::kParse), answers[2 * i + 1]) << token;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TokenizerOracle, testing::ValuesIn(kVocabularies),
                         [](const auto& info) { return std::string(info.param.name); });

// FILE.inp and FILE.out in llama.cpp's source: texts, and what the model's own tokenizer made of
// them.
class OriginalTokenizer : public testing::TestWithParam<Vocabulary> {};

TEST_P(OriginalTokenizer, MadeTheSameTokens) {
  const std::string path = PathOf(GetParam());
  auto tokenizer = Tokenizer::Load(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  std::string texts = ReadFileOrDie(path + ".inp");
  std::istringstream expected(ReadFileOrDie(path + ".out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  size_t count = 0;
  for (std::string line; std::getline(expected, line); ++count) {
    const size_t end = texts.find(separator);
    const std::string text = texts.substr(0, end);
    texts.erase(0, end == std::string::npos ? end : end + separator.size());
    std::istringstream numbers(line);
    std::vector<TokenId> tokens;
    for (TokenId token; numbers >> token;) tokens.push_back(token);
    EXPECT_EQ((*tokenizer)->Encode(text, AddSpecial::kNo, SpecialTokens::kAsText), tokens)
        << "of \"" << text << "\"";
  }
  EXPECT_GT(count, 40u);
  EXPECT_TRUE(texts.empty());
}

INSTANTIATE_TEST_SUITE_P(Models, OriginalTokenizer,
                         testing::ValuesIn(std::begin(kVocabularies) + 3, std::end(kVocabularies)),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace trellis
