#include "os/compute_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace trellis {
namespace {

TEST(ComputePoolTest, RefusesZeroThreads) {
  EXPECT_EQ(ComputePool::Create(0).status().code(), StatusCode::kInvalidArgument);
}

TEST(ComputePoolTest, RunsEveryItemOnceOnAThreadOfThePool) {
  for (size_t threads : {1u, 2u, 5u}) {
    auto pool = ComputePool::Create(threads).value();
    ASSERT_EQ(pool->num_threads(), threads);
    for (size_t items : {0u, 1u, 2u, 7u, 1000u}) {
      std::vector<std::atomic<int>> ran(items);
      std::atomic<bool> bad_thread{false};
      pool->ParallelFor(items, [&](size_t item, size_t thread) {
        ran[item]++;
        if (thread >= threads) bad_thread = true;
      });
      for (auto& count : ran) EXPECT_EQ(count, 1);
      EXPECT_FALSE(bad_thread);
    }
  }
}

TEST(ComputePoolTest, ManyShortRunsWithPausesThatPark) {
  auto pool = ComputePool::Create(3).value();
  std::atomic<size_t> total{0};
  for (int run = 0; run < 3000; run++) {
    pool->ParallelFor(4, [&](size_t item, size_t) { total += item; });
    if (run % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(total, 3000u * (0 + 1 + 2 + 3));
}

TEST(ComputePoolTest, WritesOfTheBodyAreSeenByTheCaller) {
  auto pool = ComputePool::Create(2).value();
  std::vector<int> values(4096);
  for (int round = 1; round < 200; round++) {
    pool->ParallelFor(values.size(), [&](size_t item, size_t) { values[item] = round; });
    for (int v : values) ASSERT_EQ(v, round);
  }
}

}  // namespace
}  // namespace trellis
