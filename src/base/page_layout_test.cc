#include "base/page_layout.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace trellis {
namespace {

class PageLayoutTest : public testing::TestWithParam<KvType> {};

TEST_P(PageLayoutTest, CopyRowsCopiesExactlyTheRowsBelowTheCount) {
  const PageLayout layout{.num_layers = 2, .num_kv_heads = 3, .head_dim = 8, .type = GetParam()};
  const size_t n = layout.page_bytes(), size = layout.element_bytes();
  for (size_t rows : {0u, 1u, 2u, 3u, 4u, 31u, 32u}) {
    std::vector<std::byte> from(n), to(n, std::byte{0xff});
    for (size_t i = 0; i < n; i++) from[i] = static_cast<std::byte>(i % 251);
    layout.CopyRows(from.data(), to.data(), rows);
    std::set<size_t> seen;
    const auto expect_copied = [&](size_t row, size_t offset, size_t bytes) {
      for (size_t i = offset; i < offset + bytes; i++) {
        EXPECT_TRUE(seen.insert(i).second);
        EXPECT_EQ(to[i], row < rows ? from[i] : std::byte{0xff});
      }
    };
    for (size_t layer = 0; layer < 2; layer++) {
      for (size_t head = 0; head < 3; head++) {
        for (size_t t = 0; t < kPageTokens; t++) {
          for (size_t d = 0; d < 8; d++) {
            expect_copied(t, layout.k_offset(layer, head) + layout.k_index(t, d) * size, size);
            expect_copied(t, layout.v_offset(layer, head) + layout.v_index(t, d) * size, size);
          }
          for (size_t i = 0; i < layout.scale_bytes(); i += layout.scale_bytes() / 2)
            expect_copied(t, layout.scale_offset(layer, head) + i + t * 4, 4);
        }
      }
    }
    EXPECT_EQ(seen.size(), n);
  }
}

TEST(PageLayout, BytesOfRows) {
  // 64 keys and values, and two scales where there are some.
  const auto row = [](KvType type) {
    return PageLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 64, .type = type}
               .page_bytes() /
           kPageTokens;
  };
  EXPECT_EQ(row(KvType::kF16), 256u);
  EXPECT_EQ(row(KvType::kBf16), 256u);
  EXPECT_EQ(row(KvType::kI16), 264u);
  EXPECT_EQ(row(KvType::kQ8_0), 136u);
}

INSTANTIATE_TEST_SUITE_P(Types, PageLayoutTest,
                         testing::Values(KvType::kF16, KvType::kBf16, KvType::kI16, KvType::kQ8_0));

}  // namespace
}  // namespace trellis
