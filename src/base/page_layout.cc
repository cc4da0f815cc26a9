#include "base/page_layout.h"

#include <cstring>

#include "base/check.h"

namespace trellis {

void PageLayout::CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const {
  TRELLIS_CHECK(num_rows <= kPageTokens);
  constexpr size_t kElement = sizeof(uint16_t);
  for (size_t head = 0; head < num_layers * num_kv_heads; head++) {
    for (size_t d = 0; d < head_dim; d++) {
      std::memcpy(to + d * kPageTokens * kElement, from + d * kPageTokens * kElement,
                  num_rows * kElement);
    }
    const size_t v = matrix_elements() * kElement;
    std::memcpy(to + v, from + v, num_rows * head_dim * kElement);
    from += head_elements() * kElement;
    to += head_elements() * kElement;
  }
}

}  // namespace trellis
