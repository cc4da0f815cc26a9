#include "model/step_profile.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace trellis {
namespace {

using std::chrono::milliseconds;

TEST(StepProfileTest, PartsAreInOrderAndCountTheirCallsAndWork) {
  auto pool = ComputePool::Create(2).value();
  StepProfile profile;
  std::atomic<size_t> ran{0};
  for (int i = 0; i < 3; i++) {
    profile.ParallelFor(*pool, "first", {.macs = 10, .arithmetic = Arithmetic::kInt8, .bytes = 1},
                        7, [&](size_t, size_t) { ran++; });
    profile.ParallelFor(*pool, "one item", {}, 1, [&](size_t, size_t) { ran++; });
    profile.ParallelFor(*pool, "none", {}, 0, [&](size_t, size_t) { ran++; });
    StepProfile::Timer timer(&profile, "serial");
  }
  StepProfile::Timer no_profile(nullptr, "nothing");
  EXPECT_EQ(ran, 3 * (7u + 1));
  ASSERT_EQ(profile.parts().size(), 4u);
  const StepProfile::Part& first = profile.parts()[0];
  EXPECT_EQ(first.name, "first");
  EXPECT_EQ(first.calls, 3u);
  EXPECT_EQ(first.work.macs, 30);
  EXPECT_EQ(first.work.bytes, 3);
  EXPECT_EQ(first.work.arithmetic, Arithmetic::kInt8);
  EXPECT_EQ(profile.parts()[1].name, "one item");
  EXPECT_EQ(profile.parts()[1].fork_join.count(), 0);
  EXPECT_EQ(profile.parts()[1].idle.count(), 0);
  EXPECT_EQ(profile.parts()[3].name, "serial");
}

// One item is longer than the others together: the other thread waits for it at least as long as
// the sleeps differ, and all three shares add up to what passed.
TEST(StepProfileTest, WaitingForTheLastItemIsIdle) {
  auto pool = ComputePool::Create(2).value();
  StepProfile profile;
  std::atomic<int> started{0};
  const auto begin = StepProfile::Clock::now();
  profile.ParallelFor(*pool, "uneven", {}, 2, [&](size_t item, size_t) {
    started++;
    while (started < 2) std::this_thread::yield();  // on two threads
    if (item == 0) std::this_thread::sleep_for(milliseconds(40));
  });
  const StepProfile::Seconds wall = StepProfile::Clock::now() - begin;
  const StepProfile::Part& part = profile.parts()[0];
  EXPECT_GT(part.idle.count(), 0);
  EXPECT_GT(part.fork_join.count(), 0);
  EXPECT_GE(part.time.count(), 0.020);  // a sleep lasts as long as it says, or longer
  EXPECT_LE((part.time + part.idle + part.fork_join).count(), wall.count());
}

}  // namespace
}  // namespace trellis
