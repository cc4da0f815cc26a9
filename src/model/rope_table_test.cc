// The table against the formulas it comes from, written down directly.
#include "model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

namespace trellis {
namespace {

constexpr size_t kDim = 64, kPositions = 5000;

// Expects cos and sin of `angle(position, pair)`, times `magnitude`, at positions near and far.
template <typename Angle>
void ExpectAngles(const RopeConfig& config, double magnitude, Angle angle) {
  RopeTable table(config, kDim);
  table.Extend(kPositions);
  for (const size_t position : {size_t{0}, size_t{1}, size_t{31}, size_t{1000}, kPositions - 1}) {
    for (size_t i = 0; i < kDim / 2; i++) {
      const double a = angle(static_cast<double>(position), i);
      // An angle is position * frequency, both exact to some 1e-16 of themselves.
      EXPECT_NEAR(table.cos(position)[i], magnitude * std::cos(a), 1e-6) << position << " " << i;
      EXPECT_NEAR(table.sin(position)[i], magnitude * std::sin(a), 1e-6) << position << " " << i;
    }
  }
}

double Frequency(double base, size_t pair) {
  return 1 / std::pow(base, 2 * static_cast<double>(pair) / kDim);
}

TEST(RopeTable, Plain) {
  ExpectAngles({.base = 500000}, 1, [](double p, size_t i) { return p * Frequency(500000, i); });
}

TEST(RopeTable, LinearScalingDividesPositions) {
  ExpectAngles({.linear_factor = 4}, 1,
               [](double p, size_t i) { return p / 4 * Frequency(1e4, i); });
}

TEST(RopeTable, DivisorsStretchTheirPairs) {
  RopeConfig config;
  for (size_t i = 0; i < kDim / 2; i++) {
    config.frequency_divisors.push_back(1.0f + 0.25f * static_cast<float>(i));
  }
  ExpectAngles(config, 1, [](double p, size_t i) {
    return p * Frequency(1e4, i) / (1 + 0.25 * static_cast<double>(i));
  });
}

TEST(RopeTable, YarnByItsPaper) {
  // Section 3.2, with llama.cpp's rounding of the two borders to whole pairs. A wave of pair i
  // turns r = original_context * frequency / 2 pi times: more than 32, it stays; less than once, it
  // is stretched by the factor; between, a ramp over the pairs.
  constexpr double kContext = 2048, kFactor = 8;
  const auto turns = [](size_t i) { return kContext * Frequency(1e4, i) / (2 * std::numbers::pi); };
  size_t low = 0, high = 0;
  while (turns(low + 1) >= 32) low++;  // the last pair that turns 32 times
  while (turns(high) > 1) high++;      // the first that turns once at most
  ASSERT_GT(low, 0u);
  ASSERT_LT(high, kDim / 2);
  ASSERT_GT(high, low + 2);
  ExpectAngles(
      {.linear_factor = kFactor, .yarn = true, .original_context = 2048, .magnitude = 1.2f},
      double{1.2f}, [&](double p, size_t i) {
        const double ramp =
            (static_cast<double>(i) - static_cast<double>(low)) / static_cast<double>(high - low);
        const double stretched = std::fmin(1, std::fmax(0, ramp));
        return p * Frequency(1e4, i) * ((1 - stretched) + stretched / kFactor);
      });
}

TEST(RopeTable, ExtendingChangesNoRow) {
  const RopeConfig config{.base = 12345};
  RopeTable at_once(config, kDim), in_steps(config, kDim);
  at_once.Extend(300);
  for (const size_t n : {1, 2, 100, 50, 300}) in_steps.Extend(n);
  for (size_t p = 0; p < 300; p++) {
    for (size_t i = 0; i < kDim / 2; i++) {
      ASSERT_EQ(at_once.cos(p)[i], in_steps.cos(p)[i]);
      ASSERT_EQ(at_once.sin(p)[i], in_steps.sin(p)[i]);
    }
  }
}

}  // namespace
}  // namespace trellis
