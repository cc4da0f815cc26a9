// Tokenizer: llama.cpp's vocabulary of one GGUF file. Immutable after Load; every method may be
// called from any thread.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace trellis {

// Whether text like "<|im_start|>" may become the special token it spells.
enum class SpecialTokens { kAsText, kParse };
// Whether the vocabulary's own BOS / EOS rules are applied.
enum class AddSpecial { kNo, kByVocabulary };

class Tokenizer {
 public:
  // Reads the vocabulary of the GGUF file (first split). ERRORS: kNotFound, kIo, kDataLoss,
  // kUnsupported.
  static Result<std::unique_ptr<Tokenizer>> Load(const std::string& gguf_path);
  ~Tokenizer();

  size_t vocab_size() const;
  // Bytes of the longest token: a text has at least size / longest_piece() tokens.
  size_t longest_piece() const;
  // The same tokens as libllama's llama_tokenize(text, add_special, parse_special). Any bytes are
  // accepted.
  std::vector<TokenId> Encode(std::string_view text, AddSpecial add_special,
                              SpecialTokens special) const;
  // The token's bytes: possibly half a UTF-8 sequence; empty for control tokens unless `special` is
  // kParse.
  std::string Piece(TokenId token, SpecialTokens special) const;
  // The pieces one behind the other. Unlike Decode it keeps the space that a text begins with, so
  // it is for a part of a text.
  std::string Pieces(std::span<const TokenId> tokens, SpecialTokens special) const;
  // As llama_detokenize.
  std::string Decode(const std::vector<TokenId>& tokens, SpecialTokens special) const;

  bool IsEndOfGeneration(TokenId token) const;
  // Never to be sampled, says the file (tokenizer.ggml.suppress_tokens).
  std::vector<TokenId> suppressed() const;
  // Whether Encode(kByVocabulary) puts them around a text.
  bool AddsBos() const;
  bool AddsEos() const;
  TokenId bos() const;  // -1: none
  TokenId eos() const;  // -1: none

  // tokenizer.chat_template of the file; empty when it has none.
  const std::string& chat_template() const;

  struct Impl;  // text/ only
  const Impl& impl() const { return *impl_; }

 private:
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
