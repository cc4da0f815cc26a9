#include "base/page_layout.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace trellis {
namespace {

class PageLayoutTest : public testing::TestWithParam<KvType> {};

TEST_P(PageLayoutTest, CopyRowsCopiesExactlyTheRowsBelowTheCount) {
  const PageLayout layout{.num_layers = 2, .num_kv_heads = 3, .head_dim = 8, .type = GetParam()};
  const size_t n = layout.page_bytes() / 2;
  for (size_t rows : {0u, 1u, 2u, 31u, 32u}) {
    std::vector<uint16_t> from(n), to(n, 0xffff);
    for (size_t i = 0; i < n; i++) from[i] = static_cast<uint16_t>(i);
    layout.CopyRows(reinterpret_cast<std::byte*>(from.data()),
                    reinterpret_cast<std::byte*>(to.data()), rows);
    std::set<size_t> seen;
    const auto expect_copied = [&](size_t row, size_t element) {
      EXPECT_TRUE(seen.insert(element).second);
      EXPECT_EQ(to[element], row < rows ? from[element] : 0xffff);
    };
    for (size_t layer = 0; layer < 2; layer++) {
      for (size_t head = 0; head < 3; head++) {
        for (size_t t = 0; t < kPageTokens; t++) {
          for (size_t d = 0; d < 8; d++) {
            expect_copied(t, layout.k_offset(layer, head) + layout.k_index(t, d));
            expect_copied(t, layout.v_offset(layer, head) + layout.v_index(t, d));
          }
          for (size_t i = 0; i < layout.scale_elements() / kPageTokens; i++) {
            const size_t half = i / 2 * 2 * kPageTokens;  // an f32 is two elements
            expect_copied(t, layout.scale_offset(layer, head) + half + 2 * t + i % 2);
          }
        }
      }
    }
    EXPECT_EQ(seen.size(), n);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, PageLayoutTest,
                         testing::Values(KvType::kF16, KvType::kBf16, KvType::kI16));

}  // namespace
}  // namespace trellis
