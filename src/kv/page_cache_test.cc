#include "kv/page_cache.h"

#include <gtest/gtest.h>

#include "kv/test_session.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

// `n` tokens of one of several streams that differ everywhere.
Tokens Stream(TokenId stream, size_t n) {
  Tokens tokens(n);
  for (size_t i = 0; i < n; i++) tokens[i] = 1000 * stream + static_cast<TokenId>(i % 900);
  return tokens;
}

Tokens Concat(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class PageCacheTest : public testing::Test {
 protected:
  static constexpr PageLayout kLayout{
      .num_layers = 2, .num_kv_heads = 2, .head_dim = 4, .type = KvType::kQ8_0};

  void Start(size_t num_pages) {
    Start(
        PageCache::Options{.layout = kLayout, .capacity_bytes = num_pages * kLayout.page_bytes()});
  }
  void Start(const PageCache::Options& options) {
    auto cache = PageCache::Create(options);
    ASSERT_TRUE(cache.ok());
    cache_ = std::move(cache).value();
  }
  ~PageCacheTest() override {
    if (cache_ == nullptr) return;
    cache_->Validate();
    const PageCacheStats stats = cache_->Stats();
    EXPECT_EQ(stats.num_leases, 0u);
    EXPECT_EQ(stats.pinned, 0u);
    EXPECT_EQ(stats.private_pages, 0u);
    EXPECT_EQ(stats.free + stats.committed, stats.capacity);
  }

  TestSession Acquire(const Tokens& tokens, const ScopeKey& scope = "") {
    return TestSession(*cache_, scope, tokens);
  }
  // Goes on with `tokens` behind the rows that it has.
  void Append(TestSession& session, const Tokens& tokens) {
    const Status status = session.Reserve(session.lease().num_rows() + tokens.size());
    ASSERT_TRUE(status.ok()) << status.message();
    session.Commit(tokens);
    ExpectRows(session);
  }
  // A request for `tokens` that computes what is not there.
  TestSession Compute(const Tokens& tokens, const ScopeKey& scope = "") {
    TestSession session = Acquire(tokens, scope);
    Append(session, Tokens(tokens.begin() + static_cast<ptrdiff_t>(session.lease().num_matched()),
                           tokens.end()));
    return session;
  }
  void ExpectRows(const TestSession& session) {
    EXPECT_EQ(session.FirstWrongRow(), session.lease().num_rows());
    cache_->Validate();
  }
  size_t Matched(const Tokens& tokens, const ScopeKey& scope = "") {
    return cache_->MatchLength(scope, tokens);
  }
  PageCacheStats Stats() const { return cache_->Stats(); }

  std::unique_ptr<PageCache> cache_;
};

// --- What is matched ---

TEST_F(PageCacheTest, ReuseIsTokenExact) {
  for (size_t n : {1u, 2u, 31u, 32u, 33u, 63u, 64u, 65u, 100u}) {
    Start(8);
    Compute(Stream(1, n));
    for (size_t shared = 0; shared <= n; shared++) {
      EXPECT_EQ(Matched(Stream(1, shared)), shared);
      EXPECT_EQ(Matched(Concat(Stream(1, shared), {-1, -2})), shared);
    }
    EXPECT_EQ(Matched(Stream(1, n + 50)), n);
  }
}

TEST_F(PageCacheTest, AnIdenticalPromptHasAllRowsButNeedsOnlyAllButTheLast) {
  for (size_t n : {1u, 31u, 32u, 33u, 100u}) {
    Start(8);
    Compute(Stream(1, n));
    const TestSession again = Acquire(Stream(1, n));
    EXPECT_GE(again.lease().num_matched(), n - 1);
    ExpectRows(again);
    // The last token is run again, but its row is there: nothing is written, no page is needed.
    EXPECT_EQ(cache_->PagesNeeded(again.lease(), n), 0u);
    EXPECT_EQ(Stats().private_pages, 0u);
    EXPECT_EQ(Stats().committed, PagesFor(n));
  }
}

TEST_F(PageCacheTest, ADivergenceInsideAPageCopiesOnlyTheRowsBeforeIt) {
  for (size_t at = 0; at < 70; at++) {
    Start(8);
    TestSession trunk = Compute(Stream(1, 70));
    TestSession branch = Compute(Concat(Stream(1, at), Stream(2, 5)));
    EXPECT_EQ(branch.lease().num_matched(), at);
    EXPECT_EQ(Stats().rows_copied, at % kPageTokens);
    EXPECT_EQ(Stats().committed, 3 + PagesFor(at + 5) - at / kPageTokens);
    ExpectRows(trunk);
  }
}

TEST_F(PageCacheTest, MatchLengthChangesNothing) {
  Start(4);
  Compute(Stream(1, 32));
  Compute(Stream(2, 32));
  const std::string before = cache_->Dump();
  EXPECT_EQ(Matched(Stream(1, 20)), 20u);
  EXPECT_EQ(Matched(Stream(3, 20), "another scope"), 0u);
  EXPECT_EQ(cache_->Dump(), before);
  EXPECT_EQ(Stats().lookups, 2u);
}

TEST_F(PageCacheTest, ScopesShareNothing) {
  Start(8);
  const ScopeKey a = "a", zero("a\0", 2);
  TestSession first = Compute(Stream(1, 40), a);
  for (const ScopeKey& other : {ScopeKey(), zero, ScopeKey("A")}) {
    EXPECT_EQ(Matched(Stream(1, 40), other), 0u);
  }
  TestSession second = Compute(Stream(1, 40), zero);
  ExpectRows(first);
  EXPECT_EQ(Stats().committed, 4u);
  EXPECT_EQ(Stats().num_scopes, 2u);
}

TEST_F(PageCacheTest, CountsLookups) {
  Start(8);
  Compute(Stream(1, 40));
  Compute(Stream(1, 50));
  EXPECT_EQ(Stats().lookups, 2u);
  EXPECT_EQ(Stats().tokens_looked_up, 90u);
  EXPECT_EQ(Stats().tokens_matched, 40u);
}

// --- A page that is filled in part ---

TEST_F(PageCacheTest, WhoExtendsAPageThatNobodyHoldsTakesItOver) {
  Start(8);
  Compute(Stream(1, 40));
  TestSession next = Compute(Stream(1, 60));
  EXPECT_EQ(next.lease().num_matched(), 40u);
  EXPECT_EQ(Stats().rows_copied, 0u);
  EXPECT_EQ(Stats().committed, 2u);
}

TEST_F(PageCacheTest, WhoExtendsAPageThatAnotherHoldsCopiesItsRows) {
  Start(8);
  TestSession holder = Compute(Stream(1, 40));
  TestSession next = Acquire(Stream(1, 60));
  EXPECT_EQ(cache_->PagesNeeded(next.lease(), 41), 1u);
  Append(next, Stream(2, 3));
  EXPECT_EQ(Stats().rows_copied, 8u);
  Append(holder, Stream(3, 3));
  ExpectRows(next);
  EXPECT_EQ(Stats().committed, 3u);
}

// The tail of a prompt is matched while the request that computed it writes its answer behind it.
TEST_F(PageCacheTest, RowsOfAPageAreMatchedWhileItsOwnerAppendsBehindThem) {
  Start(8);
  TestSession owner = Compute(Stream(1, 40));
  TestSession reader = Acquire(Stream(1, 40));
  EXPECT_EQ(reader.lease().num_matched(), 40u);
  for (TokenId token = 0; token < 40; token++) {
    Append(owner, {token});
    ExpectRows(reader);
  }
  Append(reader, Stream(5, 40));
  ExpectRows(owner);
}

TEST_F(PageCacheTest, ACopyKeepsWhatFollowsWhereThereIsRoom) {
  Start(4);
  Compute(Stream(1, 60));
  TestSession branch = Compute(Concat(Stream(1, 40), {-1}));
  EXPECT_EQ(Matched(Stream(1, 60)), 60u);
  EXPECT_EQ(Stats().rows_copied, 8u);
  EXPECT_EQ(Stats().committed, 3u);
}

TEST_F(PageCacheTest, WhereThereIsNoRoomForACopyWhatFollowsIsDropped) {
  Start(2);
  Compute(Stream(1, 60));
  TestSession branch = Acquire(Concat(Stream(1, 40), {-1}));
  EXPECT_EQ(cache_->PagesNeeded(branch.lease(), 41), 0u);
  Append(branch, {-1});
  EXPECT_EQ(Matched(Stream(1, 60)), 40u);
  EXPECT_EQ(Stats().rows_copied, 0u);
}

// --- Together ---

TEST_F(PageCacheTest, WhenTwoComputeTheSamePageTheTreesStaysAndTheOthersIsFreed) {
  Start(8);
  TestSession a = Acquire(Stream(1, 100)), b = Acquire(Stream(1, 100));
  ASSERT_TRUE(a.Reserve(100).ok() && b.Reserve(100).ok());
  EXPECT_EQ(Stats().private_pages, 8u);
  a.Commit(Stream(1, 100));
  EXPECT_EQ(Stats().committed, 4u);
  b.Commit(Stream(1, 100));
  ExpectRows(b);
  EXPECT_EQ(Stats().committed, 4u);
  EXPECT_EQ(Stats().private_pages, 1u) << "it may write behind its last row";
  EXPECT_EQ(Stats().pages_deduplicated, 3u);
  for (size_t page = 0; page < 3; page++) {
    EXPECT_EQ(a.lease().pages()[page], b.lease().pages()[page]);
  }
  Append(a, Stream(2, 30));
  Append(b, Stream(2, 30));
  EXPECT_EQ(Stats().pages_deduplicated, 4u);
  EXPECT_EQ(a.lease().pages()[3], b.lease().pages()[3]);
}

TEST_F(PageCacheTest, ARequestJoinsAPrefillThatIsStillRunning) {
  Start(16);
  const Tokens prompt = Stream(1, 200);
  TestSession leader = Acquire(prompt);
  ASSERT_TRUE(leader.Reserve(200).ok());
  std::vector<TestSession> followers;
  size_t rows = 0;
  for (const size_t chunk : {20u, 12u, 1u, 64u, 3u}) {
    leader.Commit(std::span(prompt).subspan(rows, chunk));
    rows += chunk;
    followers.push_back(Acquire(prompt));
    EXPECT_EQ(followers.back().lease().num_matched(), rows);
    for (const TestSession& follower : followers) ExpectRows(follower);
  }
  leader.Release();
  EXPECT_EQ(Matched(prompt), rows);
  for (TestSession& follower : followers) {
    Append(follower, Stream(7, 2));
    ExpectRows(followers[0]);
  }
}

// --- Eviction and the budget ---

TEST_F(PageCacheTest, TheLeastRecentlyUsedGoesFirstPageByPageFromItsEnd) {
  Start(6);
  Compute(Stream(1, 64));
  Compute(Stream(2, 64));
  Compute(Stream(3, 64));
  Acquire(Stream(1, 64));  // used again
  TestSession now = Compute(Stream(4, 32));
  EXPECT_EQ(Matched(Stream(2, 64)), 32u);
  Append(now, Stream(5, 32));
  EXPECT_EQ(Matched(Stream(2, 64)), 0u);
  Append(now, Stream(5, 32));
  EXPECT_EQ(Matched(Stream(3, 64)), 32u);
  EXPECT_EQ(Matched(Stream(1, 64)), 64u);
  EXPECT_EQ(Stats().pages_evicted, 3u);
}

TEST_F(PageCacheTest, OnlyWhatWasMatchedIsPinned) {
  Start(4);
  Compute(Stream(1, 128));
  TestSession reader = Acquire(Stream(1, 40));
  EXPECT_EQ(Stats().pinned, 2u);
  EXPECT_EQ(cache_->AvailablePages(), 2u);
  TestSession other = Compute(Stream(2, 64));
  ExpectRows(reader);
  EXPECT_EQ(Matched(Stream(1, 128)), 64u) << "whole pages go";
}

TEST_F(PageCacheTest, WhatCannotBeHadIsRefusedAndChangesNothing) {
  Start(4);
  TestSession a = Compute(Stream(1, 64));
  Compute(Stream(2, 60));
  TestSession b = Acquire(Stream(2, 32));
  const std::string before = cache_->Dump();
  EXPECT_EQ(cache_->AvailablePages(), 1u);
  EXPECT_EQ(a.Reserve(64 + 33).code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(cache_->Dump(), before);
  EXPECT_EQ(a.lease().num_reserved(), 64u);
  EXPECT_EQ(Matched(Stream(2, 60)), 60u);
  EXPECT_TRUE(a.Reserve(64 + 32).ok());
  EXPECT_EQ(cache_->AvailablePages(), 0u);
  EXPECT_EQ(b.Reserve(33).code(), StatusCode::kResourceExhausted);
  ExpectRows(a);
  ExpectRows(b);
  a.Release();
  EXPECT_TRUE(b.Reserve(4 * kPageTokens).ok());
  EXPECT_EQ(Stats().free, 0u);
}

TEST_F(PageCacheTest, ALookUpCountsOnceAndOnlyIfThereIsRoomForIt) {
  Start(4);
  TestSession a = Compute(Stream(1, 64));
  const Tokens prompt = Concat(Stream(1, 64), Stream(2, 96));
  for (int tries = 0; tries < 3; tries++) {
    TestSession refused = Acquire(prompt);
    EXPECT_EQ(refused.Reserve(160).code(), StatusCode::kResourceExhausted);
  }
  EXPECT_EQ(Stats().lookups, 1u);
  a.Release();
  TestSession b = Acquire(Stream(1, 50));
  EXPECT_TRUE(b.Reserve(50).ok()) << "it needs no page";
  EXPECT_TRUE(b.Reserve(90).ok());
  EXPECT_EQ(Stats().lookups, 2u);
  EXPECT_EQ(Stats().tokens_looked_up, 64u + 50u);
  EXPECT_EQ(Stats().tokens_matched, 50u);
}

// --- Ends ---

TEST_F(PageCacheTest, CancelledRequestsKeepWhatTheyCommittedAndGiveBackTheRest) {
  Start(8);
  TestSession session = Acquire(Stream(1, 200));
  ASSERT_TRUE(session.Reserve(200).ok());
  session.Commit(Stream(1, 40));
  session.Scribble();
  session.Release();
  EXPECT_EQ(Stats().private_pages, 0u);
  EXPECT_EQ(Stats().committed, 2u);
  TestSession next = Compute(Stream(1, 60));
  EXPECT_EQ(next.lease().num_matched(), 40u);
}

TEST_F(PageCacheTest, ResetForgetsAllButWhatLeasesHoldAndTheseGoOn) {
  Start(8);
  Compute(Stream(2, 40));
  TestSession a = Compute(Stream(1, 40)), b = Acquire(Stream(1, 36));
  cache_->Reset();
  EXPECT_EQ(Stats().committed, 2u);
  EXPECT_EQ(Stats().num_scopes, 0u);
  EXPECT_EQ(Matched(Stream(1, 40)), 0u);
  TestSession fresh = Compute(Stream(1, 40));
  EXPECT_EQ(fresh.lease().num_matched(), 0u);
  Append(a, Stream(3, 40));
  Append(b, Stream(4, 40));
  ExpectRows(a);
  cache_->Reset();
  Append(a, Stream(3, 40));
  a.Release();
  b.Release();
  EXPECT_EQ(Stats().committed, 2u) << "of the one since the first reset";
  ExpectRows(fresh);
}

// --- Explain ---

struct Expected {
  size_t matched, evicted, rest;
  MissCause cause;
};

void ExpectReport(const MissReport& report, const Expected& expected) {
  EXPECT_EQ(report.matched, expected.matched);
  EXPECT_EQ(report.evicted, expected.evicted);
  EXPECT_EQ(report.rest, expected.rest);
  const MissCause cause = expected.rest > 0 ? report.rest_cause : expected.cause;
  EXPECT_STREQ(MissCauseName(cause), MissCauseName(expected.cause));
}

TEST_F(PageCacheTest, SaysWhyAPromptIsNotFoundWhole) {
  Start(20);
  const Tokens trunk = Stream(1, 40);
  ExpectReport(cache_->Explain("", trunk), {0, 0, 40, MissCause::kCold});
  Compute(Concat(trunk, Stream(2, 50)));
  ExpectReport(cache_->Explain("", Concat(trunk, Stream(2, 50))), {90, 0, 0, {}});
  ExpectReport(cache_->Explain("", trunk), {40, 0, 0, {}});
  ExpectReport(cache_->Explain("", Concat(Concat(trunk, Stream(2, 50)), Stream(3, 9))),
               {90, 0, 9, MissCause::kNewTokens});
  ExpectReport(cache_->Explain("", Stream(4, 9)), {0, 0, 9, MissCause::kCold});
  ExpectReport(cache_->Explain("tenant", trunk), {0, 0, 40, MissCause::kCold});
  ExpectReport(cache_->Explain("", {}), {0, 0, 0, {}});
}

TEST_F(PageCacheTest, ShowsWhatIsThereInsteadOfADivergence) {
  Start(20);
  const Tokens trunk = Stream(1, 40), old = Stream(2, 50);
  Compute(Concat(trunk, old));
  MissReport report = cache_->Explain("", Concat(trunk, Stream(3, 20)));
  ExpectReport(report, {40, 0, 20, MissCause::kDiverged});
  EXPECT_EQ(report.instead, Stream(2, 32)) << "inside an edge";
  Compute(Concat(trunk, Stream(3, 20)));
  report = cache_->Explain("", Concat(trunk, Stream(4, 5)));
  ExpectReport(report, {40, 0, 5, MissCause::kDiverged});
  EXPECT_EQ(report.instead, Stream(3, 20)) << "the branch used last";
  Compute(Concat(trunk, old));
  EXPECT_EQ(cache_->Explain("", Concat(trunk, Stream(4, 5))).instead, Stream(2, 32));
  EXPECT_TRUE(cache_->Explain("tenant", Concat(trunk, Stream(4, 5))).instead.empty());
  Compute(Concat(Concat(trunk, Stream(2, 10)), Stream(5, 9)));
  EXPECT_EQ(cache_->Explain("", Concat(trunk, Stream(4, 5))).instead,
            Concat(Stream(2, 10), Stream(5, 9)))
      << "across a branch";
}

TEST_F(PageCacheTest, RemembersWhatWasEvictedByWholePages) {
  Start(4);
  const Tokens old = Stream(1, 100);  // 3 pages and 4 rows
  Compute(old);
  Compute(Stream(2, 64));
  ExpectReport(cache_->Explain("", old), {64, 32, 4, MissCause::kNewTokens});
  ExpectReport(cache_->Explain("", Concat(Stream(1, 70), Stream(3, 30))),
               {64, 0, 36, MissCause::kNewTokens});
  ExpectReport(cache_->Explain("tenant", old), {0, 0, 100, MissCause::kCold});
  Compute(Stream(2, 128));
  ExpectReport(cache_->Explain("", old), {0, 96, 4, MissCause::kNewTokens});
  cache_->Reset();
  ExpectReport(cache_->Explain("", old), {0, 0, 100, MissCause::kCold});
}

TEST_F(PageCacheTest, AnEvictedTailIsKnownBehindADivergenceInItsPage) {
  Start(6);
  const Tokens trunk = Stream(1, 80);
  Compute(Concat(trunk, Stream(2, 112)));  // 6 pages
  Compute(Stream(9, 128));                 // of these two stay
  Compute(Concat(Stream(1, 64), Stream(3, 10)));
  // Rows 64..73 of another branch are where the evicted page 2 was.
  ExpectReport(cache_->Explain("", Concat(trunk, Stream(2, 112))),
               {64, 128, 0, MissCause::kNewTokens});
}

TEST_F(PageCacheTest, WithoutKeepingTheCauseIsThat) {
  Start({.layout = kLayout, .capacity_bytes = 4 * kLayout.page_bytes(), .keep_finished = false});
  Compute(Stream(1, 40));
  ExpectReport(cache_->Explain("", Stream(1, 40)), {0, 0, 40, MissCause::kDisabled});
}

TEST_F(PageCacheTest, WithoutKeepingNothingIsMatchedAndNothingStays) {
  Start(PageCache::Options{
      .layout = kLayout, .capacity_bytes = 8 * kLayout.page_bytes(), .keep_finished = false});
  EXPECT_FALSE(cache_->keeps_finished());
  TestSession a = Compute(Stream(1, 40)), b = Compute(Stream(1, 40));
  EXPECT_EQ(b.lease().num_matched(), 0u);
  EXPECT_EQ(Matched(Stream(1, 40)), 0u);
  EXPECT_EQ(Stats().committed, 4u);
  a.Release();
  ExpectRows(b);
  b.Release();
  EXPECT_EQ(Stats().free, 8u);
}

TEST_F(PageCacheTest, ALeaseReleasesOnceWhereverItIsMoved) {
  Start(4);
  Lease a = cache_->Acquire("", {});
  Lease b = std::move(a);
  EXPECT_FALSE(a);  // NOLINT: that is what is tested
  EXPECT_EQ(Stats().num_leases, 1u);
  a = cache_->Acquire("", {});
  b = std::move(a);
  EXPECT_EQ(Stats().num_leases, 1u);
  cache_->Release(std::move(b));
  cache_->Release(Lease());
  EXPECT_EQ(Stats().num_leases, 0u);
}

using PageCacheDeathTest = PageCacheTest;

TEST_F(PageCacheDeathTest, MisuseIsABug) {
  Start(4);
  EXPECT_DEATH(Lease().num_rows(), "cache_");
  TestSession session = Acquire({});
  ASSERT_TRUE(session.Reserve(10).ok());
  Lease lease = cache_->Acquire("", {});
  EXPECT_DEATH(cache_->Commit(lease, Stream(1, 1)), "num_reserved");
  EXPECT_DEATH(cache_.reset(), "leases");
}

}  // namespace
}  // namespace trellis
