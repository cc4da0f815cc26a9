#include "sched/wait_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <random>

#include "base/common_prefix.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

class WaitQueueTest : public testing::Test {
 protected:
  void Add(uint64_t id, Tokens tokens, Joining joining = Joining::kAllowed,
           const ScopeKey& scope = "s") {
    prompts_.push_back(std::move(tokens));
    scopes_.push_back(scope);
    queue_.Add({RequestId(id), &scopes_.back(), prompts_.back(), joining});
  }
  void Start(uint64_t id, size_t rows) { queue_.Start(RequestId(id), rows); }
  void Progress(uint64_t id, size_t rows) { queue_.Progress(RequestId(id), rows); }
  void Stop(uint64_t id) { queue_.Stop(RequestId(id)); }
  std::vector<uint64_t> Ready() const {
    std::vector<uint64_t> ready;
    for (const WaitQueue::ReadyView& view : queue_.Ready()) ready.push_back(view.id.value());
    return ready;
  }

  WaitQueue queue_;
  std::deque<Tokens> prompts_;  // addresses stay
  std::deque<ScopeKey> scopes_;
};

using Ids = std::vector<uint64_t>;

Tokens Trunk(size_t n, TokenId first = 0) {
  Tokens tokens(n);
  for (size_t i = 0; i < n; i++) tokens[i] = first + static_cast<TokenId>(i);
  return tokens;
}

Tokens Branch(size_t trunk, TokenId branch, size_t own) {
  Tokens tokens = Trunk(trunk);
  tokens.resize(trunk + own, -branch);
  return tokens;
}

TEST_F(WaitQueueTest, OldestFirstWhateverTheOrderOfArrival) {
  Add(5, {1});
  Add(3, {2});
  Add(9, {3});
  EXPECT_EQ(Ready(), (Ids{3, 5, 9}));
  queue_.Remove(RequestId(5));
  EXPECT_EQ(Ready(), (Ids{3, 9}));
  EXPECT_EQ(queue_.size(), 2u);
}

TEST_F(WaitQueueTest, AnArrivalWaitsForExactlyTheSharedPartOfARunningPrefill) {
  Add(1, Branch(100, 1, 32));
  Start(1, 0);
  Add(2, Branch(100, 2, 32));
  Add(3, Tokens(200, -9));  // shares nothing
  EXPECT_EQ(Ready(), (Ids{3}));
  Progress(1, 99);
  EXPECT_EQ(Ready(), (Ids{3}));
  Progress(1, 100);  // mid-page
  EXPECT_EQ(Ready(), (Ids{2, 3}));
}

TEST_F(WaitQueueTest, ThoseThatWaitTogetherWaitForTheFirstOfThem) {
  for (uint64_t id = 1; id <= 4; id++) Add(id, Branch(100, static_cast<TokenId>(id), 32));
  EXPECT_EQ(Ready(), (Ids{1, 2, 3, 4}));
  Start(1, 0);
  EXPECT_EQ(Ready(), Ids{});
  Progress(1, 112);
  EXPECT_EQ(Ready(), (Ids{2, 3, 4}));
}

TEST_F(WaitQueueTest, ADeadPrefillReleasesItsWaitersAndTheNextOneLeads) {
  for (uint64_t id = 1; id <= 3; id++) Add(id, Branch(100, static_cast<TokenId>(id), 32));
  Start(1, 0);
  Progress(1, 40);
  Stop(1);
  EXPECT_EQ(Ready(), (Ids{2, 3}));
  Start(2, 40);
  EXPECT_EQ(Ready(), Ids{});
  Progress(2, 100);
  EXPECT_EQ(Ready(), Ids{3});
}

TEST_F(WaitQueueTest, EqualPromptsWaitForAllButTheLastToken) {
  Add(1, Trunk(64));
  Add(2, Trunk(64));
  Add(3, Trunk(60));  // a prefix of the others
  Start(1, 0);
  Progress(1, 58);
  EXPECT_EQ(Ready(), Ids{});
  Progress(1, 59);
  EXPECT_EQ(Ready(), Ids{3});
  Progress(1, 63);
  EXPECT_EQ(Ready(), (Ids{2, 3}));
}

TEST_F(WaitQueueTest, TheLongerOfTwoSharedPartsCounts) {
  Add(1, Branch(50, 1, 100));
  Add(2, Branch(80, 2, 100));
  Start(1, 0);
  Progress(1, 50);
  Start(2, 50);
  Add(3, Branch(70, 3, 10));  // 50 with request 1, 70 with request 2
  EXPECT_EQ(Ready(), Ids{});
  Progress(2, 70);
  EXPECT_EQ(Ready(), Ids{3});
}

TEST_F(WaitQueueTest, WhatIsComputedAlreadyIsNotWaitedFor) {
  Add(1, Branch(100, 1, 500));
  Start(1, 0);
  Progress(1, 100);
  Add(2, Branch(100, 2, 32));
  EXPECT_EQ(Ready(), Ids{2});
  EXPECT_EQ(queue_.num_comparisons(), 0u);
}

TEST_F(WaitQueueTest, ScopesAndThoseWhoDeclineDoNotJoin) {
  Add(1, Trunk(100));
  Start(1, 0);
  Add(2, Trunk(100), Joining::kAllowed, "other tenant");
  Add(3, Trunk(100), Joining::kNever);
  Add(4, Trunk(100));
  EXPECT_EQ(Ready(), (Ids{2, 3}));
  Stop(1);
  Start(3, 0);
  EXPECT_EQ(Ready(), (Ids{2, 4}));
}

// Against the definition: whoever shares with a prefill more than that has computed is not ready.
TEST_F(WaitQueueTest, AgreesWithTheDefinitionOnRandomHistories) {
  struct Oracle {
    Tokens tokens;
    size_t rows = 0;
  };
  std::mt19937 random(11);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 50; round++) {
    queue_ = WaitQueue();
    std::map<uint64_t, Oracle> waiting, prefills;
    uint64_t next_id = 1;
    for (int step = 0; step < 200; step++) {
      const size_t action = below(10);
      if (action < 4) {
        Tokens tokens(1 + below(12));
        for (TokenId& token : tokens) token = static_cast<TokenId>(below(2));
        waiting[next_id] = {tokens, 0};
        Add(next_id++, tokens);
      } else if (action < 6 && !Ready().empty()) {
        const Ids ready = Ready();
        const uint64_t id = ready[below(ready.size())];
        Oracle oracle = waiting.extract(id).mapped();
        for (const auto& [other, prefill] : prefills) {  // what a real cache would have
          const size_t shared = CommonPrefix(prefill.tokens, oracle.tokens);
          oracle.rows = std::max(oracle.rows, std::min(shared, prefill.rows));
        }
        Start(id, oracle.rows);
        prefills[id] = oracle;
      } else if (action < 9 && !prefills.empty()) {
        auto it = std::next(prefills.begin(), static_cast<long>(below(prefills.size())));
        it->second.rows += below(it->second.tokens.size() - it->second.rows + 1);
        Progress(it->first, it->second.rows);
        if (it->second.rows == it->second.tokens.size() || below(8) == 0) {
          Stop(it->first);
          prefills.erase(it);
        }
      } else if (!waiting.empty()) {
        auto it = std::next(waiting.begin(), static_cast<long>(below(waiting.size())));
        queue_.Remove(RequestId(it->first));
        waiting.erase(it);
      }
      Ids expected;
      for (const auto& [id, oracle] : waiting) {
        bool waits = false;
        for (const auto& [other, prefill] : prefills) {
          const size_t shared = CommonPrefix(prefill.tokens, oracle.tokens);
          waits = waits || std::min(shared, oracle.tokens.size() - 1) > prefill.rows;
        }
        if (!waits) expected.push_back(id);
      }
      ASSERT_EQ(Ready(), expected) << "round " << round << " step " << step;
    }
  }
}

// 500 requests wait for one trunk: a comparison for each, and none in the steps that follow.
TEST_F(WaitQueueTest, APairIsComparedOnceAndStepsCompareNothing) {
  Add(1, Branch(1000, 1, 32));
  Start(1, 0);
  for (uint64_t id = 2; id <= 501; id++) Add(id, Branch(1000, static_cast<TokenId>(id), 32));
  EXPECT_EQ(queue_.num_comparisons(), 500u);
  for (size_t rows = 0; rows < 1000; rows++) {
    Progress(1, rows);
    EXPECT_TRUE(queue_.Ready().empty());
  }
  EXPECT_EQ(queue_.num_comparisons(), 500u);
  Progress(1, 1000);
  EXPECT_EQ(Ready().size(), 500u);
}

}  // namespace
}  // namespace trellis
