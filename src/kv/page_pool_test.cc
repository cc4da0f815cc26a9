#include "kv/page_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

namespace trellis {
namespace {

using State = PagePool::FrameState;

constexpr size_t kPageBytes = 256;

std::unique_ptr<PagePool> MakePool(size_t num_frames) {
  auto pool = PagePool::Create(kPageBytes, num_frames * kPageBytes);
  EXPECT_TRUE(pool.ok());
  return std::move(pool).value();
}

StatusCode CreateCode(size_t page_bytes, size_t capacity_bytes) {
  const auto pool = PagePool::Create(page_bytes, capacity_bytes);
  return pool.ok() ? StatusCode::kOk : pool.status().code();
}

void ExpectCounts(const PagePool& pool, size_t free, size_t in_private, size_t committed) {
  EXPECT_EQ(pool.num_free(), free);
  EXPECT_EQ(pool.num_private(), in_private);
  EXPECT_EQ(pool.num_committed(), committed);
  EXPECT_EQ(free + in_private + committed, pool.capacity());
}

TEST(PagePoolTest, HoldsAsManyPagesAsFitTheBudgetAndNoMore) {
  EXPECT_EQ(PagePool::Create(kPageBytes, kPageBytes).value()->capacity(), 1u);
  EXPECT_EQ(PagePool::Create(kPageBytes, 3 * kPageBytes - 1).value()->capacity(), 2u);
}

TEST(PagePoolTest, RefusesABudgetThatCannotWork) {
  EXPECT_EQ(CreateCode(kPageBytes, kPageBytes - 1), StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode(kPageBytes, 0), StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode(0, 1000), StatusCode::kInvalidArgument);
  EXPECT_EQ(CreateCode(1, size_t{1} << 33), StatusCode::kInvalidArgument) << "too many to name";
  EXPECT_EQ(CreateCode(size_t{1} << 40, size_t{1} << 62), StatusCode::kResourceExhausted);
  EXPECT_EQ(CreateCode(std::numeric_limits<size_t>::max(), 1000), StatusCode::kInvalidArgument);
}

TEST(PagePoolTest, FramesAreDisjointAndKeepWhatIsWritten) {
  constexpr size_t kFrames = 5;
  const auto pool = MakePool(kFrames);
  std::vector<FrameId> frames;
  for (size_t i = 0; i < kFrames; i++) {
    frames.push_back(pool->Allocate());
    std::memset(pool->Address(frames[i]), static_cast<int>(i + 1), kPageBytes);
  }
  ExpectCounts(*pool, 0, kFrames, 0);
  for (size_t i = 0; i < kFrames; i++) {
    if (i % 2 == 0) pool->Commit(frames[i]);
    if (i % 4 == 0) pool->Withdraw(frames[i]);
  }
  for (size_t i = 0; i < kFrames; i++) {
    const std::byte* page = pool->Address(frames[i]);
    EXPECT_TRUE(std::all_of(page, page + kPageBytes,
                            [&](std::byte byte) { return byte == std::byte(i + 1); }));
  }
}

TEST(PagePoolTest, AFrameIsInOneStateAndIsCountedThere) {
  const auto pool = MakePool(3);
  ExpectCounts(*pool, 3, 0, 0);
  const FrameId a = pool->Allocate(), b = pool->Allocate();
  EXPECT_EQ(pool->state(a), State::kPrivate);
  ExpectCounts(*pool, 1, 2, 0);
  pool->Commit(a);
  EXPECT_EQ(pool->state(a), State::kCommitted);
  EXPECT_EQ(pool->state(b), State::kPrivate);
  ExpectCounts(*pool, 1, 1, 1);
  pool->Withdraw(a);
  EXPECT_EQ(pool->state(a), State::kPrivate);
  ExpectCounts(*pool, 1, 2, 0);
  pool->Commit(a);
  pool->Free(a);
  pool->Free(b);
  EXPECT_EQ(pool->state(a), State::kFree);
  ExpectCounts(*pool, 3, 0, 0);
}

TEST(PagePoolTest, HandsOutEachFrameOnceAndTheLastFreedFirst) {
  constexpr size_t kFrames = 4;
  const auto pool = MakePool(kFrames);
  std::set<FrameId> frames;
  for (size_t i = 0; i < kFrames; i++) frames.insert(pool->Allocate());
  EXPECT_EQ(frames.size(), kFrames);
  const FrameId first = *frames.begin(), last = *frames.rbegin();
  pool->Free(last);
  pool->Free(first);
  EXPECT_EQ(pool->Allocate(), first);
  EXPECT_EQ(pool->Allocate(), last);
}

using PagePoolDeathTest = testing::Test;

TEST(PagePoolDeathTest, AFrameThatIsNotWhereItShouldBeIsABug) {
  const auto pool = MakePool(1);
  const FrameId frame = pool->Allocate();
  EXPECT_DEATH(pool->Allocate(), "num_free");
  EXPECT_DEATH(pool->Withdraw(frame), "kCommitted");
  pool->Commit(frame);
  EXPECT_DEATH(pool->Commit(frame), "kPrivate");
  pool->Free(frame);
  EXPECT_DEATH(pool->Free(frame), "kFree");
}

}  // namespace
}  // namespace trellis
