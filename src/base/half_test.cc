#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>

namespace trellis {
namespace {

// The definition, in double precision.
double HalfValue(uint16_t half) {
  const int exponent = (half >> 10) & 31, mantissa = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, EveryHalfConvertsExactlyAndBack) {
  for (uint32_t h = 0; h < 0x10000; h++) {
    const uint16_t half = static_cast<uint16_t>(h);
    const double want = HalfValue(half);
    const float got = HalfToFloat(half);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got));
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(got))));
    } else {
      EXPECT_EQ(static_cast<double>(got), want);
      EXPECT_EQ(FloatToHalf(got), half);
    }
  }
}

TEST(HalfTest, RoundsToNearestEvenBetweenNeighbours) {
  for (uint16_t half = 0; half < 0x7bff; half++) {
    const float low = HalfToFloat(half), high = HalfToFloat(static_cast<uint16_t>(half + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(FloatToHalf(middle), half + (half & 1));
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half);
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, INFINITY)), half + 1);
  }
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
}

TEST(HalfTest, Bf16RoundsToNearestEven) {
  EXPECT_EQ(FloatToBf16(1.0f), 0x3f80);
  EXPECT_EQ(FloatToBf16(1.0f + 0x1p-8f), 0x3f80);            // a tie goes to even
  EXPECT_EQ(FloatToBf16(1.0f + 0x1p-7f + 0x1p-8f), 0x3f82);  // so does this one
  EXPECT_TRUE(std::isnan(Bf16ToFloat(FloatToBf16(NAN))));
  for (uint32_t h = 0; h < 0x7f80; h++) {
    EXPECT_EQ(FloatToBf16(Bf16ToFloat(static_cast<uint16_t>(h))), h);
  }
}

}  // namespace
}  // namespace trellis
