#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <exception>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "gguf.h"
#include "llama-vocab.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"
#include "trellis_llama.h"

namespace trellis {
namespace {

using GgufPtr = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

constexpr const char* kModelKey = "tokenizer.ggml.model";
constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
// Tokens that only a template or a raw prompt may use, and that are never shown.
constexpr int kHidden = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;

Result<GgufPtr> OpenGguf(const std::string& path) {
  // Only to tell a file that is not there from one that is not right.
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    const StatusCode code = errno == ENOENT ? StatusCode::kNotFound : StatusCode::kIo;
    return Status(code, fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  }
  std::fclose(file);
  trellis_llama::TakeErrors();
  GgufPtr gguf(gguf_init_from_file(path.c_str(), {.no_alloc = true, .ctx = nullptr}), &gguf_free);
  if (gguf == nullptr) {
    return Status(StatusCode::kDataLoss, fmt::format("{} is not a readable GGUF file: {}", path,
                                                     trellis_llama::TakeErrors()));
  }
  return gguf;
}

// The string at `key`; empty when there is none.
std::string GetString(const gguf_context* gguf, const char* key) {
  const int64_t index = gguf_find_key(gguf, key);
  if (index < 0 || gguf_get_kv_type(gguf, index) != GGUF_TYPE_STRING) return "";
  return gguf_get_val_str(gguf, index);
}

// What llama.cpp asserts of a file rather than reports.
Status CheckVocab(const gguf_context* gguf, const std::string& path) {
  const std::string kind = GetString(gguf, kModelKey);
  if (kind.empty()) {
    return Status(StatusCode::kDataLoss, fmt::format("{}: has no {}", path, kModelKey));
  }
  if (kind != "gpt2" && kind != "llama" && kind != "gemma4") {
    return Status(StatusCode::kUnsupported,
                  fmt::format("{}: the kind of vocabulary is '{}'; gpt2 (BPE) and llama "
                              "(SentencePiece) are supported",
                              path, kind));
  }
  const int64_t tokens = gguf_find_key(gguf, kTokensKey);
  if (tokens < 0 || gguf_get_kv_type(gguf, tokens) != GGUF_TYPE_ARRAY ||
      gguf_get_arr_type(gguf, tokens) != GGUF_TYPE_STRING || gguf_get_arr_n(gguf, tokens) == 0) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{}: {} is not a list of strings", path, kTokensKey));
  }
  std::unordered_set<std::string_view> seen;
  std::deque<std::string> made_up;
  for (size_t i = 0; i < gguf_get_arr_n(gguf, tokens); ++i) {
    std::string_view text = gguf_get_arr_str(gguf, tokens, i);
    // So llama.cpp calls a token without text.
    if (text.empty()) text = made_up.emplace_back(fmt::format("[EMPTY_{}]", i));
    if (!seen.insert(text).second) {
      return Status(
          StatusCode::kDataLoss,
          fmt::format("{}: {} has '{}' twice, the second time at {}", path, kTokensKey, text, i));
    }
  }
  return Status::Ok();
}

Status CheckLoaded(const llama_vocab& vocab, const std::string& path) {
  if (vocab.get_add_bos() && vocab.token_bos() == LLAMA_TOKEN_NULL) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{}: asks for a BOS token at the start and has none", path));
  }
  if (vocab.get_add_eos() && vocab.token_eos() == LLAMA_TOKEN_NULL) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{}: asks for an EOS token at the end and has none", path));
  }
  return Status::Ok();
}

// For a vocabulary that lacks some bytes, where llama.cpp throws: what can be encoded, character by
// character, and the unknown token, if there is one, for the rest.
void AppendWhatIsThere(const llama_vocab& vocab, std::string_view text,
                       std::vector<TokenId>& tokens) {
  while (!text.empty()) {
    const std::string_view character = text.substr(0, Utf8Length(text));
    text.remove_prefix(character.size());
    try {
      const auto piece = vocab.tokenize(std::string(character), false, false);
      tokens.insert(tokens.end(), piece.begin(), piece.end());
    } catch (const std::exception&) {
      if (vocab.token_unk() != LLAMA_TOKEN_NULL) tokens.push_back(vocab.token_unk());
    }
  }
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& gguf_path) {
  TRELLIS_ASSIGN_OR_RETURN(const GgufPtr gguf, OpenGguf(gguf_path));
  TRELLIS_RETURN_IF_ERROR(CheckVocab(gguf.get(), gguf_path));
  auto impl = std::make_unique<Impl>();
  try {
    trellis_llama::Vocab loaded = trellis_llama::LoadVocab(gguf.get());
    impl->vocab = std::move(loaded.vocab);
    impl->special_tokens.emplace(*impl->vocab, loaded.special_tokens);
  } catch (const std::exception& error) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{}: cannot read the vocabulary: {}", gguf_path, error.what()));
  }
  TRELLIS_RETURN_IF_ERROR(CheckLoaded(*impl->vocab, gguf_path));
  impl->vocab_size = impl->vocab->n_tokens();
  for (size_t t = 0; t < impl->vocab_size; ++t) {
    const std::string& piece = impl->vocab->token_to_piece(static_cast<TokenId>(t));
    impl->longest_piece = std::max(impl->longest_piece, piece.size());
  }
  impl->chat_template = GetString(gguf.get(), "tokenizer.chat_template");
  impl->tool_template = GetString(gguf.get(), "tokenizer.chat_template.tool_use");
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

size_t Tokenizer::vocab_size() const {
  return impl_->vocab_size;
}

size_t Tokenizer::longest_piece() const {
  return impl_->longest_piece;
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, AddSpecial add_special,
                                       SpecialTokens special) const {
  const llama_vocab& vocab = *impl_->vocab;
  // User-defined tokens are taken from any text, as libllama does.
  const auto accept = [&](TokenId token, size_t, size_t) {
    return special == SpecialTokens::kParse || (vocab.token_get_attr(token) & kHidden) == 0;
  };
  std::vector<TokenId> tokens;
  if (add_special == AddSpecial::kByVocabulary && vocab.get_add_bos()) {
    tokens.push_back(vocab.token_bos());
  }
  size_t begin = 0;
  for (const SpecialTokenMatch& match : impl_->special_tokens->Find(text, accept)) {
    impl_->AppendText(text.substr(begin, match.begin - begin), tokens);
    tokens.push_back(match.token);
    begin = match.end;
  }
  impl_->AppendText(text.substr(begin), tokens);
  if (add_special == AddSpecial::kByVocabulary && vocab.get_add_eos()) {
    tokens.push_back(vocab.token_eos());
  }
  return tokens;
}

void Tokenizer::Impl::AppendText(std::string_view text, std::vector<TokenId>& tokens) const {
  if (text.empty()) return;
  try {
    const std::vector<TokenId> more = vocab->tokenize(std::string(text), false, false);
    tokens.insert(tokens.end(), more.begin(), more.end());
  } catch (const std::exception&) {
    AppendWhatIsThere(*vocab, text, tokens);
  }
}

std::string Tokenizer::Piece(TokenId token, SpecialTokens special) const {
  if (!impl_->Contains(token)) return "";
  if (special == SpecialTokens::kAsText && (impl_->vocab->token_get_attr(token) & kHidden) != 0) {
    return "";
  }
  return impl_->vocab->token_to_piece(token);
}

std::string Tokenizer::Pieces(std::span<const TokenId> tokens, SpecialTokens special) const {
  std::string text;
  for (const TokenId token : tokens) text += Piece(token, special);
  return text;
}

std::string Tokenizer::Decode(const std::vector<TokenId>& tokens, SpecialTokens special) const {
  std::vector<TokenId> known;
  known.reserve(tokens.size());
  for (const TokenId token : tokens) {
    if (impl_->Contains(token)) known.push_back(token);
  }
  return impl_->vocab->detokenize(known, special == SpecialTokens::kParse);
}

bool Tokenizer::IsEndOfGeneration(TokenId token) const {
  return impl_->vocab->is_eog(token);
}
std::vector<TokenId> Tokenizer::suppressed() const {
  return impl_->vocab->get_suppress_tokens();
}
bool Tokenizer::AddsBos() const {
  return impl_->vocab->get_add_bos();
}
bool Tokenizer::AddsEos() const {
  return impl_->vocab->get_add_eos();
}
TokenId Tokenizer::bos() const {
  return impl_->vocab->token_bos();
}
TokenId Tokenizer::eos() const {
  return impl_->vocab->token_eos();
}
const std::string& Tokenizer::chat_template() const {
  return impl_->chat_template;
}

}  // namespace trellis
