// Small vocabularies for tests and fuzzers, written as GGUF files and loaded like any other.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "gguf.h"
#include "text/tokenizer.h"

namespace trellis {

// GGUF's token types.
enum class TokenType : int32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct TestToken {
  std::string text;
  TokenType type = TokenType::kNormal;
  float score = 0;
};

struct TestVocab {
  std::string model = "gpt2";  // or "llama"
  std::string pre = "gpt-2";
  std::string name = {};  // general.name: llama.cpp looks at it
  std::vector<TestToken> tokens = {};
  std::vector<std::string> merges = {};
  int bos = -1, eos = -1;
  bool add_bos = false, add_eos = false, add_space_prefix = false;
  std::vector<int32_t> suppressed = {};
  std::string chat_template = {};
  std::string tool_template = {};

  TokenId Id(const std::string& text) const {
    const auto found = std::find_if(tokens.begin(), tokens.end(),
                                    [&](const TestToken& token) { return token.text == text; });
    TRELLIS_CHECK(found != tokens.end());
    return static_cast<TokenId>(found - tokens.begin());
  }
};

// How GPT-2 writes a byte as a character.
inline std::string ByteAsText(int byte) {
  const auto is_shown = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
  };
  int code = byte;
  if (!is_shown(byte)) {
    code = 256;
    for (int b = 0; b < byte; ++b) code += is_shown(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// Tokens 0 to 255 are the bytes, then come "he" and "hello", then `special`.
inline TestVocab ByteVocab(const std::vector<TestToken>& special) {
  TestVocab vocab;
  for (int byte = 0; byte < 256; ++byte) vocab.tokens.push_back({ByteAsText(byte)});
  for (const char* word : {"he", "ll", "hell", "hello"}) vocab.tokens.push_back({word});
  vocab.merges = {"h e", "l l", "he ll", "hell o"};
  vocab.tokens.insert(vocab.tokens.end(), special.begin(), special.end());
  return vocab;
}

// SentencePiece with all bytes, letters, and "▁hello" built from its pieces; then `special`.
inline TestVocab PieceVocab(const std::vector<TestToken>& special) {
  TestVocab vocab;
  vocab.model = "llama";
  vocab.pre = "default";
  vocab.add_space_prefix = true;
  vocab.tokens = {{"<unk>", TokenType::kUnknown}};
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    vocab.tokens.push_back({text, TokenType::kByte});
  }
  for (char c = '!'; c <= '~'; ++c)
    vocab.tokens.push_back({std::string(1, c), TokenType::kNormal, -100});
  vocab.tokens.push_back({"▁", TokenType::kNormal, -100});
  for (const char* word : {"he", "ll", "hell", "hello", "▁hello"}) {
    vocab.tokens.push_back({word, TokenType::kNormal, -1});
  }
  vocab.tokens.insert(vocab.tokens.end(), special.begin(), special.end());
  return vocab;
}

// The path of a file with `vocab`, for the caller to remove.
inline std::string WriteVocab(const TestVocab& vocab) {
  static int count = 0;
  const std::string path = std::filesystem::temp_directory_path() /
                           fmt::format("trellis-vocab-{}-{}.gguf", getpid(), count++);
  gguf_context* gguf = gguf_init_empty();
  std::vector<const char*> texts, merges;
  std::vector<int32_t> types;
  std::vector<float> scores;
  for (const TestToken& token : vocab.tokens) {
    texts.push_back(token.text.c_str());
    types.push_back(static_cast<int32_t>(token.type));
    scores.push_back(token.score);
  }
  for (const std::string& merge : vocab.merges) merges.push_back(merge.c_str());
  gguf_set_val_str(gguf, "general.architecture", "llama");
  if (!vocab.name.empty()) gguf_set_val_str(gguf, "general.name", vocab.name.c_str());
  gguf_set_val_str(gguf, "tokenizer.ggml.model", vocab.model.c_str());
  gguf_set_val_str(gguf, "tokenizer.ggml.pre", vocab.pre.c_str());
  gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", texts.data(), texts.size());
  gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, types.data(), types.size());
  gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores.data(), scores.size());
  if (vocab.model == "gpt2") {
    gguf_set_arr_str(gguf, "tokenizer.ggml.merges", merges.data(), merges.size());
  }
  const auto set_id = [&](const char* key, int id) {
    if (id >= 0) gguf_set_val_u32(gguf, key, static_cast<uint32_t>(id));
  };
  set_id("tokenizer.ggml.bos_token_id", vocab.bos);
  set_id("tokenizer.ggml.eos_token_id", vocab.eos);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", vocab.add_bos);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_eos_token", vocab.add_eos);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_space_prefix", vocab.add_space_prefix);
  if (!vocab.suppressed.empty()) {
    gguf_set_arr_data(gguf, "tokenizer.ggml.suppress_tokens", GGUF_TYPE_INT32,
                      vocab.suppressed.data(), vocab.suppressed.size());
  }
  if (!vocab.chat_template.empty()) {
    gguf_set_val_str(gguf, "tokenizer.chat_template", vocab.chat_template.c_str());
  }
  if (!vocab.tool_template.empty()) {
    gguf_set_val_str(gguf, "tokenizer.chat_template.tool_use", vocab.tool_template.c_str());
  }
  TRELLIS_CHECK(gguf_write_to_file(gguf, path.c_str(), true));
  gguf_free(gguf);
  return path;
}

inline Result<std::unique_ptr<Tokenizer>> TryLoad(const TestVocab& vocab) {
  const std::string path = WriteVocab(vocab);
  auto loaded = Tokenizer::Load(path);
  std::remove(path.c_str());
  return loaded;
}

inline std::unique_ptr<Tokenizer> Load(const TestVocab& vocab) {
  auto loaded = TryLoad(vocab);
  if (!loaded.ok()) std::fprintf(stderr, "%s\n", loaded.status().message().c_str());
  TRELLIS_CHECK(loaded.ok());
  return std::move(loaded).value();
}

}  // namespace trellis
