// The oracle's ruler, against distributions whose divergence is known.
#include "comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace trellis {
namespace {

float Log(double p) {
  return static_cast<float>(std::log(p));
}

TEST(Comparison, DivergenceOfKnownDistributions) {
  // Adding to all logits changes no probability.
  const float p[] = {Log(0.5) + 7, Log(0.25) + 7, Log(0.25) + 7};
  const float q[] = {Log(0.25), Log(0.5), Log(0.25)};
  const RowDistance row = Distance(p, q, 3);
  EXPECT_NEAR(row.kl, 0.25 * std::log(2), 1e-6);
  EXPECT_FALSE(row.same_top);
  EXPECT_NEAR(row.max_difference, 7 + std::log(2), 1e-5);
  const RowDistance same = Distance(p, p, 3);
  EXPECT_EQ(same.kl, 0);
  EXPECT_TRUE(same.same_top);
}

TEST(Comparison, LargeLogitsDoNotOverflow) {
  const float p[] = {1000, 1000}, q[] = {1000 + Log(3), 1000};
  EXPECT_NEAR(Distance(p, q, 2).kl, 0.5 * std::log(0.5 / 0.75) + 0.5 * std::log(0.5 / 0.25), 1e-4);
}

TEST(Comparison, NotANumberIsNeverWithinALimit) {
  const float p[] = {1, 2}, nan[] = {1, std::numeric_limits<float>::quiet_NaN()};
  Divergence sum;
  sum.Add(Distance(p, p, 2));
  sum.Add(Distance(p, nan, 2));
  sum.Add(Distance(p, p, 2));
  EXPECT_FALSE(sum.mean_kl() <= 1);
  EXPECT_FALSE(sum.max_difference <= 1);
}

TEST(Comparison, DisagreementsThatChanceExplains) {
  Divergence none, many;
  none.num_rows = many.num_rows = 500;
  many.disagreements = 50;
  EXPECT_EQ(MaxDisagreements(none), 5u);   // 3 * sqrt(2)
  EXPECT_EQ(MaxDisagreements(many), 79u);  // 50 + 3 * sqrt(2 * 500 * 0.1018 * 0.8982)
}

}  // namespace
}  // namespace trellis
