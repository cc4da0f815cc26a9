#include "base/page_layout.h"

#include <gtest/gtest.h>

#include <vector>

namespace trellis {
namespace {

TEST(PageLayoutTest, CopyRowsCopiesExactlyTheRowsBelowTheCount) {
  const PageLayout layout{.num_layers = 2, .num_kv_heads = 3, .head_dim = 8};
  const size_t n = layout.page_bytes() / 2;
  for (size_t rows : {0u, 1u, 31u, 32u}) {
    std::vector<uint16_t> from(n), to(n, 0xffff);
    for (size_t i = 0; i < n; i++) from[i] = static_cast<uint16_t>(i);
    layout.CopyRows(reinterpret_cast<std::byte*>(from.data()),
                    reinterpret_cast<std::byte*>(to.data()), rows);
    for (size_t layer = 0; layer < 2; layer++) {
      for (size_t head = 0; head < 3; head++) {
        for (size_t t = 0; t < kPageTokens; t++) {
          for (size_t d = 0; d < 8; d++) {
            const size_t k = layout.k_offset(layer, head) + d * kPageTokens + t;
            const size_t v = layout.v_offset(layer, head) + t * 8 + d;
            EXPECT_EQ(to[k], t < rows ? from[k] : 0xffff);
            EXPECT_EQ(to[v], t < rows ? from[v] : 0xffff);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace trellis
