#include "base/page_layout.h"

#include <cstring>

#include "base/check.h"

namespace trellis {
namespace {

void CopyKeys(const PageLayout& layout, const std::byte* from, std::byte* to, size_t num_rows) {
  const size_t row = layout.interleave() * layout.element_bytes();
  for (size_t i = 0; i < layout.matrix_bytes(); i += kPageTokens * row)
    std::memcpy(to + i, from + i, num_rows * row);
}

void CopyValues(const PageLayout& layout, const std::byte* from, std::byte* to, size_t num_rows) {
  const size_t size = layout.element_bytes(), n = layout.interleave(), whole = num_rows / n * n;
  std::memcpy(to, from, whole * layout.head_dim * size);
  if (whole == num_rows) return;
  // The other rows of these are not ours to touch.
  for (size_t i = layout.v_index(whole, 0); i < (whole + n) * layout.head_dim; i += n)
    std::memcpy(to + i * size, from + i * size, (num_rows - whole) * size);
}

void CopyScales(const std::byte* from, std::byte* to, size_t num_rows) {
  constexpr size_t kValues = kPageTokens * sizeof(float);
  for (const size_t i : {size_t{0}, kValues})
    std::memcpy(to + i, from + i, num_rows * sizeof(float));
}

}  // namespace

void PageLayout::CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const {
  TRELLIS_CHECK(num_rows <= kPageTokens);
  for (size_t layer = 0; layer < num_layers; layer++) {
    for (size_t head = 0; head < num_kv_heads; head++) {
      const size_t k = k_offset(layer, head), v = v_offset(layer, head);
      CopyKeys(*this, from + k, to + k, num_rows);
      CopyValues(*this, from + v, to + v, num_rows);
      const size_t scales = scale_offset(layer, head);
      if (has_scales()) CopyScales(from + scales, to + scales, num_rows);
    }
  }
}

}  // namespace trellis
