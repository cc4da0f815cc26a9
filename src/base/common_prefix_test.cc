#include "base/common_prefix.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace trellis {
namespace {

TEST(CommonPrefixTest, EveryLengthAroundAStretch) {
  for (size_t n : {0u, 1u, 255u, 256u, 257u, 512u, 600u}) {
    std::vector<TokenId> longer(n + 5);
    std::iota(longer.begin(), longer.end(), 1);
    const std::vector<TokenId> a(longer.begin(), longer.end() - 5);
    EXPECT_EQ(CommonPrefix(a, a), n);
    EXPECT_EQ(CommonPrefix(a, longer), n);
    for (size_t i = 0; i < n; i++) {
      std::vector<TokenId> b = a;
      b[i] = -1;
      EXPECT_EQ(CommonPrefix(a, b), i);
      EXPECT_EQ(CommonPrefix(b, a), i);
    }
  }
}

}  // namespace
}  // namespace trellis
