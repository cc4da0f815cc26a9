#include "text/prompt_encoder.h"

#include <algorithm>
#include <exception>
#include <set>

#include "llama-vocab.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace trellis {
namespace {

bool IsSpace(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

bool IsMarker(std::string_view text, llama_token_attr attributes,
              std::string_view template_source) {
  if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0) return true;
  return (attributes & LLAMA_TOKEN_ATTR_USER_DEFINED) != 0 &&
         !std::all_of(text.begin(), text.end(), IsSpace) &&
         template_source.find(text) != std::string_view::npos;
}

}  // namespace

PromptEncoder::PromptEncoder(const Tokenizer& tokenizer, std::string_view template_source)
    : tokenizer_(tokenizer), is_first_byte_(256), is_marker_(tokenizer.vocab_size()) {
  const llama_vocab& vocab = *tokenizer.impl().vocab;
  std::set<size_t, std::greater<>> sizes;
  for (size_t i = 0; i < is_marker_.size(); ++i) {
    const TokenId token = static_cast<TokenId>(i);
    const std::string_view text = vocab.token_get_text(token);
    if (text.empty() || !IsMarker(text, vocab.token_get_attr(token), template_source)) continue;
    markers_.emplace(text, token);
    sizes.insert(text.size());
    is_first_byte_[static_cast<unsigned char>(text[0])] = true;
    is_marker_[i] = true;
  }
  marker_sizes_.assign(sizes.begin(), sizes.end());
}

// Every marker in [begin, end) of `text`, overlapping ones too.
void PromptEncoder::FindCandidates(std::string_view text, size_t begin, size_t end,
                                   std::vector<Marker>& found) const {
  for (size_t i = begin; i < end; ++i) {
    if (!is_first_byte_[static_cast<unsigned char>(text[i])]) continue;
    for (const size_t size : marker_sizes_) {
      if (size > end - i) continue;
      const auto marker = markers_.find(text.substr(i, size));
      if (marker != markers_.end()) found.push_back({i, i + size, marker->second});
    }
  }
}

// In order of their place. As libllama does it, the longest claim their text first.
std::vector<PromptEncoder::Marker> PromptEncoder::FindMarkers(
    std::string_view text, const std::vector<PromptPart>& parts) const {
  std::vector<Marker> candidates;
  size_t run_begin = 0, offset = 0;
  for (const PromptPart& part : parts) {
    if (!part.literal) {
      FindCandidates(text, run_begin, offset, candidates);
      run_begin = offset + part.text.size();
    }
    offset += part.text.size();
  }
  FindCandidates(text, run_begin, offset, candidates);

  std::stable_sort(candidates.begin(), candidates.end(), [](const Marker& a, const Marker& b) {
    return a.end - a.begin > b.end - b.begin;
  });
  const auto by_place = [](const Marker& a, const Marker& b) { return a.begin < b.begin; };
  std::set<Marker, decltype(by_place)> taken(by_place);
  for (const Marker& candidate : candidates) {
    const auto next = taken.lower_bound(candidate);
    if (next != taken.end() && next->begin < candidate.end) continue;
    if (next != taken.begin() && std::prev(next)->end > candidate.begin) continue;
    taken.insert(next, candidate);
  }
  return {taken.begin(), taken.end()};
}

std::vector<TokenId> PromptEncoder::Encode(const std::vector<PromptPart>& parts) const {
  const llama_vocab& vocab = *tokenizer_.impl().vocab;
  std::string text;
  for (const PromptPart& part : parts) text += part.text;

  std::vector<TokenId> tokens;
  if (vocab.get_add_bos()) tokens.push_back(vocab.token_bos());
  size_t begin = 0;
  const auto append_until = [&](size_t end) {
    if (begin < end) AppendAsText(std::string_view(text).substr(begin, end - begin), tokens);
  };
  for (const Marker& marker : FindMarkers(text, parts)) {
    const llama_token_attr attributes = vocab.token_get_attr(marker.token);
    size_t end = marker.begin;
    if ((attributes & LLAMA_TOKEN_ATTR_LSTRIP) != 0) {
      while (end > begin && IsSpace(text[end - 1])) --end;
    }
    append_until(end);
    tokens.push_back(marker.token);
    begin = marker.end;
    if ((attributes & LLAMA_TOKEN_ATTR_RSTRIP) != 0) {
      while (begin < text.size() && IsSpace(text[begin])) ++begin;
    }
  }
  append_until(text.size());
  if (vocab.get_add_eos()) tokens.push_back(vocab.token_eos());
  return tokens;
}

void PromptEncoder::AppendAsText(std::string_view text, std::vector<TokenId>& tokens) const {
  const llama_vocab& vocab = *tokenizer_.impl().vocab;
  for (const TokenId token : tokenizer_.Encode(text, AddSpecial::kNo, SpecialTokens::kAsText)) {
    // A forged user-defined token, or one that SentencePiece put together from its pieces. The
    // unknown token is no marker here: it stands for text that has no other.
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
