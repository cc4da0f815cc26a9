// Each policy by its definition, and in a cache that is too small.
#include "kv/eviction_policy.h"

#include <gtest/gtest.h>

#include "kv/page_cache.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;
using Class = EvictionPolicy::Class;

constexpr PageLayout kLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 1};

class EvictionPolicyTest : public testing::TestWithParam<EvictionPolicyKind> {};
INSTANTIATE_TEST_SUITE_P(All, EvictionPolicyTest, testing::ValuesIn(kEvictionPolicies),
                         [](const auto& test) {
                           return std::string(EvictionPolicyName(test.param));
                         });

std::unique_ptr<PageCache> MakeCache(EvictionPolicyKind kind, size_t pages) {
  return PageCache::Create(
             {.layout = kLayout, .capacity_bytes = pages * kLayout.page_bytes(), .eviction = kind})
      .value();
}

void Use(PageCache& cache, const Tokens& tokens, int32_t priority = 0) {
  Lease lease = cache.Acquire("", tokens);
  cache.SetPriority(lease, priority);
  ASSERT_TRUE(cache.Reserve(lease, tokens.size()).ok());
  cache.Commit(lease, std::span(tokens).subspan(lease.num_rows()));
}

// `pages` whole pages of `token`, behind `head`.
Tokens Pages(size_t pages, TokenId token, Tokens head = {}) {
  head.resize(head.size() + pages * kPageTokens, token);
  return head;
}

TEST_P(EvictionPolicyTest, HasANameByWhichItIsFound) {
  EXPECT_EQ(FindEvictionPolicy(EvictionPolicyName(GetParam())), GetParam());
  EXPECT_EQ(FindEvictionPolicy("fifo"), std::nullopt);
}

TEST_P(EvictionPolicyTest, AClassNeverFallsWhileUsesGrow) {
  const auto policy = EvictionPolicy::Make(GetParam());
  for (const size_t end : {1u, 100u, 10'000u, 1'000'000u, 1'000'000'000u}) {
    size_t before = 0;
    for (uint64_t uses = 1; uses != 0 && uses < uint64_t{1} << 63; uses += 1 + uses / 2) {
      const size_t now = policy->ClassOf({.uses = uses, .end = end});
      EXPECT_GE(now, before);
      EXPECT_LT(now, policy->num_classes());
      before = now;
    }
  }
}

TEST_P(EvictionPolicyTest, ChoosesAClassThatHasNodes) {
  const auto policy = EvictionPolicy::Make(GetParam());
  for (size_t only = 0; only < policy->num_classes(); only++) {
    std::vector<Class> classes(policy->num_classes());
    classes[only] = {.num_nodes = 1, .num_pages = 10, .last_used = 5};
    EXPECT_EQ(policy->Victim(classes, 9), only);
  }
}

TEST_P(EvictionPolicyTest, WithoutReuseItIsTheOldestThatGoes) {
  const auto cache = MakeCache(GetParam(), 4);
  for (TokenId token = 1; token <= 5; token++) Use(*cache, Pages(1, token));
  EXPECT_EQ(cache->MatchLength("", Pages(1, 1)), 0u);
  for (TokenId token = 2; token <= 5; token++)
    EXPECT_EQ(cache->MatchLength("", Pages(1, token)), kPageTokens);
}

TEST_P(EvictionPolicyTest, ATrunkOutlivesItsBranches) {
  const auto cache = MakeCache(GetParam(), 6);
  const Tokens trunk = Pages(2, 1);
  for (TokenId branch = 10; branch < 40; branch++) Use(*cache, Pages(2, branch, trunk));
  EXPECT_EQ(cache->MatchLength("", Pages(2, 39, trunk)), 4 * kPageTokens);
  EXPECT_EQ(cache->MatchLength("", Pages(2, 38, trunk)), 4 * kPageTokens);
  EXPECT_EQ(cache->MatchLength("", Pages(2, 30, trunk)), 2 * kPageTokens);
}

// One prompt that came again, then many that come once.
size_t KeptOfWhatCameAgain(EvictionPolicyKind kind, size_t times, size_t scan) {
  const auto cache = MakeCache(kind, 8);
  const Tokens again = Pages(2, 1);
  for (size_t i = 0; i < times; i++) Use(*cache, again);
  for (size_t i = 0; i < scan; i++) Use(*cache, Pages(1, static_cast<TokenId>(100 + i)));
  return cache->MatchLength("", again);
}

TEST(EvictionPolicyTest, WhatWasUsedAgainOutlivesAScanExceptWithLru) {
  const size_t all = 2 * kPageTokens;
  EXPECT_EQ(KeptOfWhatCameAgain(EvictionPolicyKind::kLru, 4, 8), 0u);
  EXPECT_EQ(KeptOfWhatCameAgain(EvictionPolicyKind::kSlru, 4, 1000), all);
  EXPECT_EQ(KeptOfWhatCameAgain(EvictionPolicyKind::kLfu, 4, 1000), all);
  EXPECT_EQ(KeptOfWhatCameAgain(EvictionPolicyKind::kCost, 4, 16), all);
  EXPECT_EQ(KeptOfWhatCameAgain(EvictionPolicyKind::kCost, 4, 1000), 0u) << "its worth has an end";
}

TEST(EvictionPolicyTest, SlruTakesFromWhatWasUsedAgainWhenThatHasNearlyAll) {
  const auto policy = EvictionPolicy::Make(EvictionPolicyKind::kSlru);
  std::vector<Class> classes = {{1, 20, 9}, {1, 80, 1}};
  EXPECT_EQ(policy->Victim(classes, 10), 0u);
  classes = {{1, 20, 9}, {1, 85, 1}};
  EXPECT_EQ(policy->Victim(classes, 10), 1u);
  classes = {{1, 1, 9}, {1, 3, 1}};
  EXPECT_EQ(policy->Victim(classes, 10), 0u) << "three of four are no more than 4/5";
  classes = {{1, 1, 9}, {1, 5, 1}};
  EXPECT_EQ(policy->Victim(classes, 10), 1u);
}

// The trunk is pinned when its deep branch is released, and must not go before that.
TEST(EvictionPolicyTest, ATrunkIsWorthAsMuchAsItsDeepestBranchWhoeverHoldsIt) {
  const auto cache = MakeCache(EvictionPolicyKind::kCost, 2000);
  const Tokens trunk = Pages(3, 1), deep = Pages(1000, 2, trunk), flat = Pages(1, 3, trunk);
  {
    Lease holder = cache->Acquire("", flat);
    ASSERT_TRUE(cache->Reserve(holder, flat.size()).ok());
    cache->Commit(holder, flat);
    Use(*cache, deep);
    cache->Validate();
  }
  cache->Validate();
  Use(*cache, Pages(1990, 4));
  cache->Validate();
  EXPECT_GE(cache->MatchLength("", deep), trunk.size());
}

TEST(EvictionPolicyTest, PriorityKeepsWhatTheMostUrgentRequestUsed) {
  const auto cache = MakeCache(EvictionPolicyKind::kPriority, 8);
  const Tokens urgent = Pages(2, 1);
  Use(*cache, urgent, -1);
  Use(*cache, urgent, 5);
  for (TokenId token = 100; token < 120; token++) Use(*cache, Pages(1, token));
  EXPECT_EQ(cache->MatchLength("", urgent), urgent.size());
  for (TokenId token = 200; token < 220; token++) Use(*cache, Pages(1, token), -2);
  EXPECT_EQ(cache->MatchLength("", urgent), 0u);
}

TEST(EvictionPolicyTest, WhoFindsNoRoomHasUsedNothing) {
  const auto cache = MakeCache(EvictionPolicyKind::kSlru, 8);
  const Tokens once = Pages(2, 1);
  Use(*cache, once);
  for (int i = 0; i < 10; i++) {
    Lease lease = cache->Acquire("", once);
    EXPECT_FALSE(cache->Reserve(lease, 9 * kPageTokens).ok());
  }
  for (TokenId token = 100; token < 108; token++) Use(*cache, Pages(1, token));
  EXPECT_EQ(cache->MatchLength("", once), 0u);
}

TEST(EvictionPolicyTest, CostKeepsTheDeeperOfTwoThatWereUsedAlike) {
  const auto policy = EvictionPolicy::Make(EvictionPolicyKind::kCost);
  EXPECT_GT(policy->ClassOf({.uses = 1, .end = 65536}), policy->ClassOf({.uses = 1, .end = 4096}));
  EXPECT_GT(policy->ClassOf({.uses = 1, .end = 4096}), policy->ClassOf({.uses = 1, .end = 32}));
  const std::vector<Class> classes = {{1, 1, 50}, {0, 0, 0}, {1, 1, 20}};
  std::vector<Class> all(policy->num_classes());
  std::copy(classes.begin(), classes.end(), all.begin());
  EXPECT_EQ(policy->Victim(all, 100), 0u) << "51 is more than 81 / 2";
  EXPECT_EQ(policy->Victim(all, 60), 2u) << "11 is less than 41 / 2";
}

}  // namespace
}  // namespace trellis
