#include "base/page_layout.h"

#include <cstring>

#include "base/check.h"

namespace trellis {
namespace {

void CopyHeadOfI16(const PageLayout& layout, const uint16_t* from, uint16_t* to, size_t num_rows) {
  constexpr size_t kRun = 2 * kPageTokens;  // a pair of dimensions of all keys
  for (size_t i = 0; i < layout.matrix_elements(); i += kRun)
    std::memcpy(to + i, from + i, 2 * num_rows * sizeof(uint16_t));
  from += layout.matrix_elements(), to += layout.matrix_elements();
  std::memcpy(to, from, num_rows / 2 * 2 * layout.head_dim * sizeof(uint16_t));
  if (num_rows % 2 != 0) {  // the other row of the pair is not ours to touch
    for (size_t d = 0; d < layout.head_dim; d++) {
      const size_t i = layout.v_index(num_rows - 1, d);
      to[i] = from[i];
    }
  }
  from += layout.matrix_elements(), to += layout.matrix_elements();
  constexpr size_t kScales = kPageTokens * sizeof(float) / sizeof(uint16_t);
  for (size_t i = 0; i < 2; i++)
    std::memcpy(to + i * kScales, from + i * kScales, num_rows * sizeof(float));
}

void CopyHeadOfFloats(const PageLayout& layout, const uint16_t* from, uint16_t* to,
                      size_t num_rows) {
  for (size_t i = 0; i < layout.matrix_elements(); i += kPageTokens)
    std::memcpy(to + i, from + i, num_rows * sizeof(uint16_t));
  const size_t v = layout.matrix_elements();
  std::memcpy(to + v, from + v, num_rows * layout.head_dim * sizeof(uint16_t));
}

}  // namespace

void PageLayout::CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const {
  TRELLIS_CHECK(num_rows <= kPageTokens);
  const auto* source = reinterpret_cast<const uint16_t*>(from);
  auto* target = reinterpret_cast<uint16_t*>(to);
  for (size_t head = 0; head < num_layers * num_kv_heads; head++) {
    (type == KvType::kI16 ? CopyHeadOfI16 : CopyHeadOfFloats)(*this, source, target, num_rows);
    source += head_elements(), target += head_elements();
  }
}

}  // namespace trellis
