// StreamDecoder: tokens in, text out, never half a UTF-8 sequence and never a part of a stop
// string.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace trellis {

class StreamDecoder {
 public:
  // `stop`: generation ends before the first occurrence of any of them, also across token borders.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop, SpecialTokens special);

  // Text that is now certain. Invalid UTF-8 becomes U+FFFD. After stopped() it is always empty.
  std::string Push(TokenId token);
  // What was held back, at the end of generation.
  std::string Finish();
  // Whether a stop string was met, and which.
  bool stopped() const { return !stop_hit_.empty(); }
  const std::string& stop_hit() const { return stop_hit_; }

 private:
  std::string TakeCertain();

  const Tokenizer& tokenizer_;
  std::vector<std::string> stop_;
  SpecialTokens special_;
  std::string held_;  // bytes not yet emitted
  std::string stop_hit_;
};

}  // namespace trellis
