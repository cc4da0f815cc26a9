#include "sched/admission.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

TEST(AdmissionTest, AloneItNeedsJustItsTokens) {
  const AdmissionNeed need =
      NeedToAdmit({.num_tokens = 33, .max_new_tokens = 100, .num_preemptions = 3});
  EXPECT_EQ(need.num_rows, 33u);
  EXPECT_EQ(need.spare_pages, 0u);
}

TEST(AdmissionTest, BesideOthersItNeedsAPageToGenerateIntoIfItCanFillOne) {
  const auto rows = [](size_t tokens, size_t max_new) {
    const AdmissionNeed need =
        NeedToAdmit({.num_tokens = tokens, .max_new_tokens = max_new, .num_running = 5});
    EXPECT_EQ(need.spare_pages, 0u);
    return need.num_rows;
  };
  EXPECT_EQ(rows(32, 1), 32u);  // its only token is never fed
  EXPECT_EQ(rows(32, 2), 33u);
  EXPECT_EQ(rows(20, 33), 52u);
  EXPECT_EQ(rows(20, 1000000), 52u);
}

TEST(AdmissionTest, PreemptedItLeavesAPageForEveryOther) {
  const AdmissionNeed need =
      NeedToAdmit({.num_tokens = 32, .max_new_tokens = 50, .num_running = 5, .num_preemptions = 1});
  EXPECT_EQ(need.num_rows, 64u);
  EXPECT_EQ(need.spare_pages, 5u);
}

}  // namespace
}  // namespace trellis
