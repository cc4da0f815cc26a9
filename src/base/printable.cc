#include "base/printable.h"

namespace trellis {

std::string Printable(std::string_view text) {
  std::string out(text);
  for (size_t i = 0; i < out.size(); i++) {
    const auto c = static_cast<unsigned char>(out[i]);
    const auto next = static_cast<unsigned char>(i + 1 < out.size() ? out[i + 1] : 0);
    if ((c < ' ' && c != '\n') || c == 0x7F) out[i] = '?';
    if (c == 0xC2 && next >= 0x80 && next < 0xA0) out[i] = out[i + 1] = '?';
  }
  return out;
}

}  // namespace trellis
