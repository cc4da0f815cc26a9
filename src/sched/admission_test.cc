#include "sched/admission.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

TEST(AdmissionTest, AloneItNeedsJustItsPages) {
  EXPECT_EQ(PagesToAdmit({.num_tokens = 1, .max_new_tokens = 100}), 1u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 32, .max_new_tokens = 100}), 1u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 33, .max_new_tokens = 100}), 2u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 33, .max_new_tokens = 100, .num_preemptions = 3}), 2u);
}

TEST(AdmissionTest, WholeMatchedPagesAreNotPaidAgainAPartlyMatchedOneIs) {
  EXPECT_EQ(PagesToAdmit({.num_tokens = 100, .num_matched = 64, .max_new_tokens = 9}), 2u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 100, .num_matched = 65, .max_new_tokens = 9}), 2u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 100, .num_matched = 96, .max_new_tokens = 9}), 1u);
  EXPECT_EQ(PagesToAdmit({.num_tokens = 100, .num_matched = 100, .max_new_tokens = 9}), 0u);
}

TEST(AdmissionTest, BesideOthersItNeedsAPageToGenerateIntoIfItCanReachOne) {
  const auto pages = [](size_t tokens, size_t matched, size_t max_new) {
    return PagesToAdmit({.num_tokens = tokens,
                         .num_matched = matched,
                         .max_new_tokens = max_new,
                         .num_running = 5});
  };
  EXPECT_EQ(pages(32, 0, 1), 1u);  // its only token is never fed
  EXPECT_EQ(pages(32, 0, 2), 2u);
  EXPECT_EQ(pages(20, 0, 13), 1u);
  EXPECT_EQ(pages(20, 0, 14), 2u);
  EXPECT_EQ(pages(20, 0, 1000000), 2u);
  EXPECT_EQ(pages(32, 32, 2), 1u);
  EXPECT_EQ(pages(40, 40, 2), 1u);  // the page that holds its last rows may have to be copied
}

TEST(AdmissionTest, PreemptedItLeavesAPageForEveryOther) {
  EXPECT_EQ(PagesToAdmit(
                {.num_tokens = 32, .max_new_tokens = 50, .num_running = 5, .num_preemptions = 1}),
            2u + 5u);
}

}  // namespace
}  // namespace trellis
