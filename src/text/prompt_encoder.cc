#include "text/prompt_encoder.h"

#include <algorithm>
#include <exception>

#include "llama-vocab.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace trellis {
namespace {

bool IsMarker(std::string_view text, llama_token_attr attributes,
              std::string_view template_source) {
  if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0) return true;
  return (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0 &&
         !std::all_of(text.begin(), text.end(), IsAsciiSpace) &&
         template_source.find(text) != std::string_view::npos;
}

}  // namespace

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer, std::string_view template_source)
    : tokenizer_(tokenizer), is_marker_(tokenizer.vocab_size()) {
  const llama_vocab& vocab = *tokenizer.impl().vocab;
  for (size_t i = 0; i < is_marker_.size(); ++i) {
    const TokenId token = static_cast<TokenId>(i);
    is_marker_[i] =
        IsMarker(vocab.token_get_text(token), vocab.token_get_attr(token), template_source);
  }
}

std::vector<TokenId> PromptEncoder::Encode(const std::vector<PromptPart>& parts) const {
  const llama_vocab& vocab = *tokenizer_.impl().vocab;
  std::string text;
  std::vector<bool> is_literal;  // by byte
  for (const PromptPart& part : parts) {
    text += part.text;
    is_literal.resize(text.size(), part.literal);
  }
  const auto accept = [&](TokenId token, size_t begin, size_t end) {
    if (!is_marker_[static_cast<size_t>(token)]) return true;
    const auto first = is_literal.begin() + static_cast<ptrdiff_t>(begin);
    const auto last = is_literal.begin() + static_cast<ptrdiff_t>(end);
    return std::find(first, last, false) == last;
  };

  std::vector<TokenId> tokens;
  if (vocab.get_add_bos()) tokens.push_back(vocab.token_bos());
  const std::string_view all = text;
  size_t begin = 0;
  for (const SpecialTokenMatch& match : tokenizer_.impl().special_tokens->Find(text, accept)) {
    AppendAsText(all.substr(begin, match.begin - begin), tokens);
    tokens.push_back(match.token);
    begin = match.end;
  }
  AppendAsText(all.substr(begin), tokens);
  if (vocab.get_add_eos()) tokens.push_back(vocab.token_eos());
  return tokens;
}

void PromptEncoder::AppendAsText(std::string_view text, std::vector<TokenId>& tokens) const {
  const llama_vocab& vocab = *tokenizer_.impl().vocab;
  std::vector<TokenId> encoded;
  tokenizer_.impl().AppendText(text, encoded);
  for (const TokenId token : encoded) {
    // A forged marker that was put together from its pieces. The unknown token is no marker here:
    // it stands for text that has no other.
    if (is_marker_[static_cast<size_t>(token)] && token != vocab.token_unk()) {
      AppendSpelledOut(token, tokens);
    } else {
      tokens.push_back(token);
    }
  }
}

// The token's text, character by character, or byte by byte where there is no such token.
void PromptEncoder::AppendSpelledOut(TokenId token, std::vector<TokenId>& tokens) const {
  const llama_vocab& vocab = *tokenizer_.impl().vocab;
  std::string_view text = vocab.token_get_text(token);
  while (!text.empty()) {
    const std::string_view character = text.substr(0, Utf8Length(text));
    text.remove_prefix(character.size());
    const TokenId whole = vocab.text_to_token(std::string(character));
    if (whole >= 0 && !is_marker_[static_cast<size_t>(whole)]) {
      tokens.push_back(whole);
      continue;
    }
    for (const char byte : character) {
      TokenId single = vocab.token_unk();
      try {
        single = vocab.byte_to_token(static_cast<uint8_t>(byte));
      } catch (const std::exception&) {  // the vocabulary has no such byte
      }
      if (single >= 0) tokens.push_back(single);
    }
  }
}

}  // namespace trellis
