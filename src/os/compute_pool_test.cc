#include "os/compute_pool.h"

#include <gtest/gtest.h>

#include <time.h>

#include <array>
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

TEST(ComputePoolTest, AShareWhoseThreadIsHeldUpIsDoneByOthers) {
  constexpr size_t kItems = 50;
  auto pool = ComputePool::Create(2);
  ASSERT_TRUE(pool.ok());
  for (const size_t held_up : {size_t{0}, kItems / 2, kItems - 1}) {
    std::atomic<size_t> others{0};
    (*pool)->ParallelFor(kItems, [&](size_t item, size_t) {
      if (item != held_up) {
        others++;
      } else {
        while (others < kItems - 1) std::this_thread::yield();
      }
    });
    EXPECT_EQ(others, kItems - 1);
  }
}

// As many items as threads, each of which waits until all have begun: nobody can take two.
TEST(ComputePoolTest, AThreadBeginsWithItsOwnShare) {
  constexpr size_t kThreads = 4;
  auto pool = ComputePool::Create(kThreads).value();
  for (size_t items_each : {1u, 3u}) {
    for (int run = 0; run < 20; run++) {
      std::atomic<size_t> begun{0};
      std::array<std::atomic<size_t>, kThreads> first{};
      pool->ParallelFor(kThreads * items_each, [&](size_t item, size_t thread) {
        if (item % items_each != 0) return;
        first[item / items_each] = thread;
        begun++;
        while (begun < kThreads) std::this_thread::yield();
      });
      for (size_t t = 0; t < kThreads; t++) EXPECT_EQ(first[t], t);
    }
  }
}

TEST(ComputePoolTest, OneByOneItemsAreBegunInOrder) {
  auto pool = ComputePool::Create(3).value();
  for (int run = 0; run < 20; run++) {
    std::atomic<size_t> begun{0}, done{0};
    constexpr size_t kItems = 30;
    std::vector<std::atomic<size_t>> before(kItems);
    pool->ParallelFor(
        kItems,
        [&](size_t item, size_t) {
          before[item] = done.load();
          begun++;
          done++;
        },
        ComputePool::Order::kOneByOne);
    EXPECT_EQ(begun, kItems);
    // At most one item of each other thread was on its way.
    for (size_t item = 0; item < kItems; item++) EXPECT_GE(before[item] + 2, item);
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

// More threads than cores: workers come late, or while the run before is being closed.
TEST(ComputePoolTest, LateWorkersNeverTouchAnotherRun) {
  auto pool = ComputePool::Create(8).value();
  for (int run = 0; run < 2000; run++) {
    // The body lives in this iteration only; a straggler would read it after its end.
    std::vector<std::atomic<int>> ran(static_cast<size_t>(run % 19));
    pool->ParallelFor(ran.size(), [&](size_t item, size_t) { ran[item]++; });
    for (auto& count : ran) ASSERT_EQ(count, 1);
  }
}

TEST(ComputePoolTest, ThreadsOfOneRunAreDistinct) {
  auto pool = ComputePool::Create(4).value();
  for (int run = 0; run < 200; run++) {
    std::vector<std::atomic<int>> inside(4);
    std::atomic<bool> shared{false};
    pool->ParallelFor(64, [&](size_t, size_t thread) {
      if (inside[thread].fetch_add(1) != 0) shared = true;
      inside[thread].fetch_sub(1);
    });
    ASSERT_FALSE(shared);
  }
}

TEST(ComputePoolTest, IdleThreadsUseNoCpu) {
  auto pool = ComputePool::Create(3).value();
  pool->ParallelFor(8, [](size_t, size_t) {});
  const auto cpu_time = [] {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return std::chrono::seconds(t.tv_sec) + std::chrono::nanoseconds(t.tv_nsec);
  };
  // However long parking takes on a loaded machine, it comes: a stretch without any work.
  bool idle = false;
  for (int tries = 0; !idle && tries < 200; tries++) {
    const auto before = cpu_time();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    idle = cpu_time() - before < std::chrono::milliseconds(2);
  }
  EXPECT_TRUE(idle);
  int sum = 0;
  pool->ParallelFor(1, [&](size_t, size_t) { sum++; });
  EXPECT_EQ(sum, 1);
}

}  // namespace
}  // namespace trellis
