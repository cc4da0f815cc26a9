#include "sched/chunk_size.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace trellis {
namespace {

using Seconds = ChunkSize::Seconds;

// A machine where a step takes a + b * decoding + c * prompt rows.
struct Machine {
  double step, decoding, prompt;
  ChunkSize::Step Run(size_t num_decoding, size_t num_prompt) const {
    return {.num_decoding = num_decoding,
            .num_prompt = num_prompt,
            .took = Seconds(step + decoding * static_cast<double>(num_decoding) +
                            prompt * static_cast<double>(num_prompt))};
  }
};

constexpr ChunkSize::Options kOptions{
    .first = 128, .least = 16, .most = 512, .target = Seconds(0.2)};

// Mixed steps, as large as allowed, until nothing changes much; what the last one took.
double Settle(ChunkSize& size, const Machine& machine, size_t num_decoding) {
  ChunkSize::Step step;
  for (int i = 0; i < 40; i++) {
    step = machine.Run(num_decoding, size.rows() - num_decoding);
    size.Observe(step);
  }
  return step.took.count();
}

TEST(ChunkSizeTest, WithoutATargetItStaysAsItIs) {
  ChunkSize size({.first = 77, .least = 16, .most = 512, .target = Seconds(0)});
  size.Observe({.num_decoding = 1, .num_prompt = 76, .took = Seconds(100)});
  size.Observe({.num_decoding = 0, .num_prompt = 512, .took = Seconds(0.001)});
  EXPECT_EQ(size.rows(), 77u);
}

TEST(ChunkSizeTest, SettlesWhereAStepTakesTheTarget) {
  for (const Machine machine :
       {Machine{0.04, 0.0005, 0.003}, Machine{0.008, 0.0001, 0.0006}, Machine{0.1, 0.01, 0.002}}) {
    ChunkSize size(kOptions);
    EXPECT_NEAR(Settle(size, machine, 4), 0.2, 0.2 * 0.05);
  }
}

TEST(ChunkSizeTest, StaysBetweenItsBounds) {
  ChunkSize slow(kOptions), fast(kOptions);
  Settle(slow, {1, 0.1, 0.1}, 1);
  EXPECT_EQ(slow.rows(), 16u);
  Settle(fast, {1e-4, 1e-6, 1e-6}, 1);
  EXPECT_EQ(fast.rows(), 512u);
}

TEST(ChunkSizeTest, WhereDecodingIsSlowAPromptStillGetsHalfOfTheTime) {
  const Machine slow{0.3, 0.01, 0.003};
  ChunkSize size(kOptions);
  for (int i = 0; i < 5; i++) size.Observe(slow.Run(1, 0));
  EXPECT_NEAR(Settle(size, slow, 1), 0.62, 0.62 * 0.05);
  ChunkSize hasty(kOptions);
  for (int i = 0; i < 5; i++) hasty.Observe({.num_decoding = 1, .took = Seconds(0.01)});
  EXPECT_NEAR(Settle(hasty, {0.01, 0.0001, 0.001}, 1), 0.2, 0.01);
}

TEST(ChunkSizeTest, BeginsWithWhatPromptsAloneHaveShown) {
  ChunkSize size(kOptions);
  size.Observe({.num_decoding = 0, .num_prompt = 512, .took = Seconds(1.6)});
  EXPECT_EQ(size.rows(), 51u);
  size.Observe({.num_decoding = 1, .num_prompt = 50, .took = Seconds(0.19)});
  const size_t rows = size.rows();
  size.Observe({.num_decoding = 0, .num_prompt = 512, .took = Seconds(100)});
  EXPECT_EQ(size.rows(), rows) << "mixed steps know better";
}

TEST(ChunkSizeTest, OneSlowStepIsCorrectedInTheNextAndMadeUpForInAFew) {
  ChunkSize size(kOptions);
  Settle(size, {0.04, 0.0005, 0.003}, 1);
  const size_t before = size.rows();
  size.Observe({.num_decoding = 1, .num_prompt = before - 1, .took = Seconds(10)});
  EXPECT_LE(size.rows(), before / 2);
  Settle(size, {0.04, 0.0005, 0.003}, 1);
  EXPECT_NEAR(static_cast<double>(size.rows()), static_cast<double>(before), 2);
}

TEST(ChunkSizeTest, AStepThatNeededFewRowsSaysNothingOfMany) {
  ChunkSize size(kOptions);
  size.Observe({.num_decoding = 1, .num_prompt = 20, .took = Seconds(0.01)});
  EXPECT_EQ(size.rows(), 128u);
  size.Observe({.num_decoding = 5, .num_prompt = 0, .took = Seconds(0.9)});
  EXPECT_EQ(size.rows(), 128u) << "no prompt, no chunk";
}

// Depth makes rows dearer while a prompt is computed: what a step takes stays near the target.
TEST(ChunkSizeTest, FollowsWhatChangesSlowly) {
  ChunkSize size(kOptions);
  double cost = 0.0005;
  Settle(size, {0.01, 0.0005, cost}, 1);
  for (int i = 0; i < 200; i++) {
    cost *= 1.01;
    const ChunkSize::Step step = Machine{0.01, 0.0005, cost}.Run(1, size.rows() - 1);
    if (size.rows() < 512) {
      EXPECT_LT(step.took.count(), 0.2 * 1.1);
    }
    size.Observe(step);
  }
}

}  // namespace
}  // namespace trellis
