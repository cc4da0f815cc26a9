// StreamDecoder: tokens in, text out, never half a UTF-8 sequence and never a part of a stop
// string.
#pragma once

#include <string>
#include <vector>

#include "text/tokenizer.h"
#include "text/utf8.h"

namespace trellis {

// The text does not depend on how it was cut into tokens. One per answer; not shared by threads.
class StreamDecoder {
 public:
  // `stop`: the text ends before the first of them that is complete, also across token borders; of
  // several that end with the same byte, the longest counts. Empty ones never match.
  // REQUIRES: `tokenizer` outlives this.
  // `shown`: tokens whose text is given, whatever `special` says.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop, SpecialTokens special,
                std::vector<TokenId> shown = {});

  // Text that is now certain. Invalid UTF-8 becomes U+FFFD. After stopped() it is always empty.
  // COST: proportional to the token's bytes, times the number of stop strings.
  std::string Push(TokenId token);
  // What was held back, at the end of generation.
  std::string Finish();
  // Whether a stop string was met, and which.
  bool stopped() const { return !stop_hit_.empty(); }
  const std::string& stop_hit() const { return stop_hit_; }

 private:
  // A stop string and how much of it the text so far ends with (Knuth, Morris and Pratt).
  struct Matcher {
    explicit Matcher(std::string stop);
    void Feed(char byte);

    std::string text;
    std::vector<size_t> fallback;  // [i]: the longest border of text[0..i]
    size_t matched = 0;
  };

  const Tokenizer& tokenizer_;
  std::vector<Matcher> stop_;
  SpecialTokens special_;
  std::vector<TokenId> shown_;
  std::string held_;   // what may become a part of a stop string
  Utf8Repair repair_;  // what is certain, but may be half a character
  std::string stop_hit_;
};

}  // namespace trellis
