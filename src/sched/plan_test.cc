#include "sched/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace trellis {
namespace {

RunningView View(uint64_t id, size_t num_tokens, size_t num_rows) {
  return {.id = RequestId(id), .num_tokens = num_tokens, .num_rows = num_rows};
}

PlannedRows Rows(uint64_t id, size_t index, size_t first, size_t count, Logits logits) {
  return {
      .id = RequestId(id), .index = index, .first_row = first, .num_rows = count, .logits = logits};
}

constexpr Limits kLimits{.step_tokens = 512, .mixed_step_tokens = 128, .max_running = 64};

TEST(PlanTest, NothingRunningPlansNothing) {
  const BatchPlan plan = Plan({}, kLimits);
  EXPECT_TRUE(plan.rows.empty());
  EXPECT_EQ(plan.num_rows, 0u);
}

TEST(PlanTest, APromptIsCutByTheBudgetAndOnlyItsLastChunkWantsLogits) {
  EXPECT_EQ(Plan({{View(1, 1000, 0)}}, kLimits).rows,
            std::vector{Rows(1, 0, 0, 512, Logits::kNone)});
  EXPECT_EQ(Plan({{View(1, 1000, 512)}}, kLimits).rows,
            std::vector{Rows(1, 0, 512, 488, Logits::kLastRow)});
}

TEST(PlanTest, AResidentPromptRunsItsLastRowOnly) {
  EXPECT_EQ(Plan({{View(1, 70, 70)}}, kLimits).rows,
            std::vector{Rows(1, 0, 69, 1, Logits::kLastRow)});
  EXPECT_EQ(Plan({{View(1, 1, 0)}}, kLimits).rows, std::vector{Rows(1, 0, 0, 1, Logits::kLastRow)});
}

TEST(PlanTest, DecodingComesFirstAndShrinksTheStep) {
  const BatchPlan plan = Plan({{View(1, 1000, 0), View(2, 50, 49), View(3, 9, 8)}}, kLimits);
  EXPECT_EQ(plan.rows,
            (std::vector{Rows(2, 1, 49, 1, Logits::kLastRow), Rows(3, 2, 8, 1, Logits::kLastRow),
                         Rows(1, 0, 0, 126, Logits::kNone)}));
  EXPECT_EQ(plan.num_rows, 128u);
}

TEST(PlanTest, ThePromptWithTheFewestRowsLeftFirstThenTheNextInTheSameStep) {
  const BatchPlan plan =
      Plan({{View(4, 400, 0), View(5, 300, 100), View(6, 40, 0), View(7, 500, 0)}}, kLimits);
  EXPECT_EQ(plan.rows, (std::vector{
                           Rows(6, 2, 0, 40, Logits::kLastRow),
                           Rows(5, 1, 100, 200, Logits::kLastRow),
                           Rows(4, 0, 0, 272, Logits::kNone),
                       }));
}

TEST(PlanTest, OfEqualPromptsTheOldestFirst) {
  EXPECT_EQ(Plan({{View(8, 600, 0), View(3, 600, 0)}}, kLimits).rows,
            std::vector{Rows(3, 1, 0, 512, Logits::kNone)});
}

TEST(PlanTest, WhoLeadsGivesWay) {
  RunningView longer = View(1, 5000, 0), shorter = View(2, 1000, 0);
  shorter.standing.session_lead = kLimits.quantum.tokens;
  EXPECT_EQ(Plan({{longer, shorter}}, kLimits).rows.front().id, longer.id);
  shorter.standing.session_lead--;
  EXPECT_EQ(Plan({{longer, shorter}}, kLimits).rows.front().id, shorter.id);
}

TEST(PlanTest, EightBranchesJoinTheSameStep) {
  Snapshot snapshot;
  snapshot.running.push_back(View(0, 2080, 2048));
  for (uint64_t id = 1; id < 8; id++) snapshot.running.push_back(View(id, 2080, 2048));
  const BatchPlan plan = Plan(snapshot, kLimits);
  EXPECT_EQ(plan.rows.size(), 8u);
  EXPECT_EQ(plan.num_rows, 8u * 32);
}

TEST(PlanTest, ManyDecodersDoNotStarveAPrompt) {
  Snapshot snapshot;
  for (uint64_t id = 0; id < 200; id++) snapshot.running.push_back(View(id, 10, 9));
  snapshot.running.push_back(View(200, 1000, 0));
  const BatchPlan plan = Plan(snapshot, kLimits);
  EXPECT_EQ(plan.rows.size(), 201u);
  EXPECT_EQ(plan.rows.back(), Rows(200, 200, 0, kLeastChunk, Logits::kNone));
}

// Random snapshots: the properties that plan.h states, checked one by one.
TEST(PlanTest, HoldsItsPromisesOnRandomSnapshots) {
  std::mt19937 random(7);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 2000; round++) {
    Snapshot snapshot;
    const size_t n = below(70);
    for (size_t i = 0; i < n; i++) {
      const size_t tokens = 1 + below(below(2) == 0 ? 3 : 900);
      snapshot.running.push_back(
          View(i + 1, tokens, below(2) == 0 ? tokens - 1 : below(tokens + 1)));
    }
    const Limits limits{.step_tokens = 1 + below(600), .mixed_step_tokens = 1 + below(200)};
    const BatchPlan plan = Plan(snapshot, limits);

    std::vector<size_t> planned(n, 0);
    size_t decoding = 0, prefill_rows = 0;
    for (const PlannedRows& rows : plan.rows) {
      const RunningView& view = snapshot.running.at(rows.index);
      EXPECT_EQ(rows.id, view.id);
      ASSERT_GE(rows.num_rows, 1u);
      EXPECT_EQ(planned[rows.index], 0u) << "planned twice";
      planned[rows.index] = rows.num_rows;
      EXPECT_EQ(rows.first_row, std::min(view.num_rows, view.num_tokens - 1));
      const bool last = rows.first_row + rows.num_rows == view.num_tokens;
      EXPECT_EQ(rows.logits == Logits::kLastRow, last);
      RemainingRows(view) == 1 ? decoding++ : prefill_rows += rows.num_rows;
    }
    EXPECT_EQ(plan.num_rows, decoding + prefill_rows);
    size_t most_planned = 0, least_left_out = SIZE_MAX, num_cut = 0;
    for (size_t i = 0; i < n; i++) {
      const size_t need = RemainingRows(snapshot.running[i]);
      if (need == 1) {
        EXPECT_EQ(planned[i], 1u) << "a decoding request starved";
      } else if (planned[i] == 0) {
        least_left_out = std::min(least_left_out, need);
      } else {
        most_planned = std::max(most_planned, need);
        if (planned[i] < need) num_cut++;
      }
    }
    EXPECT_LE(most_planned, least_left_out) << "fewest rows first";
    EXPECT_LE(num_cut, 1u);
    // Work-conserving: rows are left out only if the budget is used up.
    if (num_cut > 0 || least_left_out != SIZE_MAX) {
      EXPECT_GE(plan.num_rows, decoding > 0 ? limits.mixed_step_tokens : limits.step_tokens);
    }
    const size_t budget = decoding > 0 ? limits.mixed_step_tokens : limits.step_tokens;
    EXPECT_LE(prefill_rows, std::max(budget - std::min(budget, decoding), kLeastChunk));
    EXPECT_EQ(plan.rows.empty(), n == 0);
  }
}

}  // namespace
}  // namespace trellis
