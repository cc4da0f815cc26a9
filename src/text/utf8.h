// UTF-8 as text/ needs it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace trellis {

// What C's isspace() says in its own locale.
inline bool IsAsciiSpace(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// The bytes of the first character of `text`; a byte that starts no valid one counts as a character
// of its own. REQUIRES: `text` is not empty.
size_t Utf8Length(std::string_view text);

// Makes valid UTF-8 of a stream of bytes that arrive in any pieces: what is invalid becomes U+FFFD,
// one for each maximal part of a sequence that could have been valid (as the Unicode standard
// recommends, chapter 3, and browsers do), the same however the bytes were cut.
class Utf8Repair {
 public:
  // Appends to `out` all that `bytes` completes; at most three bytes stay inside.
  void Feed(std::string_view bytes, std::string& out);
  // The end: appends U+FFFD for a sequence that stayed incomplete.
  void Finish(std::string& out);

 private:
  char pending_[4] = {};
  size_t num_pending_ = 0;
};

}  // namespace trellis
