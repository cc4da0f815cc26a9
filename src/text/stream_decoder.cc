#include "text/stream_decoder.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace trellis {

StreamDecoder::Matcher::Matcher(std::string stop) : text(std::move(stop)), fallback(text.size()) {
  for (size_t i = 1, border = 0; i < text.size(); ++i) {
    while (border > 0 && text[i] != text[border]) border = fallback[border - 1];
    if (text[i] == text[border]) ++border;
    fallback[i] = border;
  }
}

// REQUIRES: matched < text.size().
void StreamDecoder::Matcher::Feed(char byte) {
  while (matched > 0 && byte != text[matched]) matched = fallback[matched - 1];
  if (byte == text[matched]) ++matched;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop,
                             SpecialTokens special, std::vector<TokenId> shown)
    : tokenizer_(tokenizer), special_(special), shown_(std::move(shown)) {
  for (std::string& text : stop) {
    if (!text.empty()) stop_.emplace_back(std::move(text));
  }
}

std::string StreamDecoder::Push(TokenId token) {
  std::string out;
  if (stopped()) return out;
  const bool is_shown = std::find(shown_.begin(), shown_.end(), token) != shown_.end();
  const std::string piece = tokenizer_.Piece(token, is_shown ? SpecialTokens::kParse : special_);
  for (size_t i = 0; i < piece.size() && !stopped(); ++i) {
    held_.push_back(piece[i]);
    for (Matcher& stop : stop_) {
      stop.Feed(piece[i]);
      if (stop.matched == stop.text.size() && stop.text.size() > stop_hit_.size()) {
        stop_hit_ = stop.text;
      }
    }
  }
  if (stopped()) {
    held_.resize(held_.size() - stop_hit_.size());
    return Finish();
  }
  size_t maybe = 0;
  for (const Matcher& stop : stop_) maybe = std::max(maybe, stop.matched);
  const size_t certain = held_.size() - maybe;
  repair_.Feed(std::string_view(held_).substr(0, certain), out);
  held_.erase(0, certain);
  return out;
}

std::string StreamDecoder::Finish() {
  std::string out;
  repair_.Feed(held_, out);
  repair_.Finish(out);
  held_.clear();
  return out;
}

}  // namespace trellis
