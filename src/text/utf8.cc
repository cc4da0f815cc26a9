#include "text/utf8.h"

namespace trellis {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Sequence {
  size_t size;      // bytes that belong together
  bool valid;       // a whole character
  bool unfinished;  // valid so far, `text` ended
};

// What starts at text[0]. The ranges are those of table 3-7 of the Unicode standard.
Sequence FirstSequence(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, false, true};
    if (byte(i) < (i == 1 ? low : 0x80) || byte(i) > (i == 1 ? high : 0xBF)) {
      return {i, false, false};
    }
  }
  return {length, true, false};
}

}  // namespace

size_t Utf8Length(std::string_view text) {
  const Sequence first = FirstSequence(text);
  return first.valid ? first.size : 1;
}

void Utf8Repair::Feed(std::string_view bytes, std::string& out) {
  size_t i = 0;
  while (i < bytes.size()) {
    if (num_pending_ == 0 && static_cast<unsigned char>(bytes[i]) < 0x80) {
      out.push_back(bytes[i++]);
      continue;
    }
    // A sequence is decided byte by byte, so that where the stream was cut makes no difference.
    pending_[num_pending_++] = bytes[i++];
    const Sequence first = FirstSequence(std::string_view(pending_, num_pending_));
    if (first.unfinished) continue;
    if (first.valid) {
      out.append(pending_, num_pending_);
    } else {
      out.append(kReplacement);
      if (first.size < num_pending_) --i;  // the last byte does not belong to it: look again
    }
    num_pending_ = 0;
  }
}

void Utf8Repair::Finish(std::string& out) {
  if (num_pending_ > 0) out.append(kReplacement);
  num_pending_ = 0;
}

}  // namespace trellis
