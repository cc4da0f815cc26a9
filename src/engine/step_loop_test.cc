#include "engine/step_loop.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

#include "engine/step_loop_fixture.h"

namespace trellis {
namespace {

// --- One request ---

TEST_F(StepLoopTest, TextIsTheReferencesWhateverTheChunks) {
  for (size_t step_tokens : {1u, 31u, 32u, 33u, 100u, 512u}) {
    for (size_t n : {1u, 2u, 31u, 32u, 33u, 64u, 200u}) {
      Start(64, {.step_tokens = step_tokens, .mixed_step_tokens = step_tokens});
      const Job job = Submit(MakeTokens(n, n), 40);
      RunUntilIdle();
      ExpectComplete(job);
      EXPECT_EQ(job.sink->timings().computed_tokens, n);
      EXPECT_EQ(num_rows_, n + 39) << "the last token is never fed";
      ExpectNothingHeld();
    }
  }
}

TEST_F(StepLoopTest, AnIdenticalPromptRunsItsLastRowOnly) {
  for (size_t n : {1u, 2u, 31u, 32u, 33u, 100u}) {
    Start(64);
    Submit(MakeTokens(n, 1), 5);
    RunUntilIdle();
    const Job again = Submit(MakeTokens(n, 1), 5);
    RunUntilIdle();
    ExpectComplete(again);
    EXPECT_EQ(again.sink->timings().cached_tokens, n - 1);
    EXPECT_EQ(again.sink->timings().computed_tokens, 1u);
  }
}

TEST_F(StepLoopTest, ANextTurnRunsWhatFollowsAndTheTokenThatWasNeverFed) {
  Start(64);
  Tokens chat = MakeTokens(50, 1);
  for (uint64_t turn = 0; turn < 6; turn++) {
    const size_t resident = turn == 0 ? 0 : chat.size() - 10 - 1;
    const Job job = Submit(chat, 23);
    RunUntilIdle();
    ExpectComplete(job);
    EXPECT_EQ(job.sink->timings().cached_tokens, resident);
    chat = Concat(Concat(chat, job.sink->tokens()), MakeTokens(10, turn + 2));
  }
}

TEST_F(StepLoopTest, AnEndTokenStopsAndIsNotDelivered) {
  Start(64);
  GenerateRequest request = Greedy(MakeTokens(40, 3));
  const Tokens all = ReferenceTokens(model_, request, 30);
  request.end_tokens = {all[17]};
  const Job job = Submit(request, 30);
  RunUntilIdle();
  EXPECT_EQ(job.sink->reason(), FinishReason::kStop);
  const Tokens expected = ReferenceTokens(model_, request, 30);
  ASSERT_LE(expected.size(), 17u);
  EXPECT_EQ(job.sink->tokens(), expected);
  EXPECT_EQ(job.sink->timings().generated_tokens, expected.size() + 1);
  EXPECT_EQ(loop_->Stats().finished_total, 1u);
}

TEST_F(StepLoopTest, WithoutPrefixCacheNothingIsMatchedAndNobodyWaits) {
  Start(64, kLimits, Finished::kGo);
  const Job a = Submit(MakeTokens(100, 1), 3);
  const Job b = Submit(MakeTokens(100, 1), 3);
  Step();
  EXPECT_EQ(num_sequences_, 2u);
  RunUntilIdle();
  const Job c = Submit(MakeTokens(100, 1), 3);
  RunUntilIdle();
  for (const Job* job : {&a, &b, &c}) {
    ExpectComplete(*job);
    EXPECT_EQ(job->sink->timings().computed_tokens, 100u);
  }
  EXPECT_EQ(loop_->CacheStats().free, 64u);
}

TEST_F(StepLoopTest, ARequestThatDeclinesTheCacheRunsItsWholePrompt) {
  Start(64);
  Submit(MakeTokens(100, 1), 3);
  RunUntilIdle();
  GenerateRequest request = Greedy(MakeTokens(100, 1));
  request.cache_prompt = false;
  const Job job = Submit(request, 3);
  RunUntilIdle();
  ExpectComplete(job);
  EXPECT_EQ(job.sink->timings().computed_tokens, 100u);
  EXPECT_EQ(loop_->Stats().queried_tokens_total, 100u) << "those of the first alone";
  EXPECT_EQ(loop_->Stats().hit_tokens_total, 0u);
}

TEST_F(StepLoopTest, PromptTokensAreCachedComputedOrAbandoned) {
  Start(64, {.step_tokens = 40, .mixed_step_tokens = 40});
  Submit(MakeTokens(100, 1), 3);
  RunUntilIdle();
  const Job job = Submit(Concat(MakeTokens(100, 1), MakeTokens(80, 2)), 3);
  Step();
  Cancel(job.id);
  const EngineStats stats = loop_->Stats();
  EXPECT_EQ(stats.prompt_tokens_total, 280u);
  EXPECT_EQ(stats.cached_tokens_total, 100u);
  EXPECT_EQ(stats.computed_tokens_total, 140u);
  EXPECT_EQ(stats.abandoned_tokens_total, 40u);
  EXPECT_EQ(stats.queried_tokens_total, 280u);
  EXPECT_EQ(stats.hit_tokens_total, 100u);
  EXPECT_EQ(stats.length_total, 1u);
}

// --- Why tokens are computed ---

MissCounts Missed(size_t tokens, MissCause cause) {
  MissCounts counts;
  counts[cause] = tokens;
  return counts;
}

TEST_F(StepLoopTest, SaysWhyTokensWereComputed) {
  Start(16);
  const auto missed = [&](const Tokens& prompt) {
    const Job job = Submit(prompt, 1);
    RunUntilIdle();
    ExpectComplete(job);
    return job.sink->timings();
  };
  const Tokens trunk = MakeTokens(100, 1);
  EXPECT_EQ(missed(trunk).missed.tokens, Missed(100, MissCause::kCold).tokens);
  EXPECT_EQ(missed(trunk).missed.tokens, Missed(1, MissCause::kNewTokens).tokens) << "the last one";
  EXPECT_EQ(missed(Concat(trunk, MakeTokens(20, 2))).missed.tokens,
            Missed(20, MissCause::kNewTokens).tokens);
  const GenerateTimings other = missed(Concat(trunk, Concat({7}, MakeTokens(19, 3))));
  ASSERT_TRUE(other.divergence.has_value());
  EXPECT_EQ(other.divergence->position, 100u);
  EXPECT_EQ(other.divergence->prompt, Concat({7}, MakeTokens(19, 3)));
  EXPECT_EQ(other.divergence->cached, MakeTokens(20, 2));
  EXPECT_EQ(other.missed.tokens, Missed(20, MissCause::kDiverged).tokens);
  EXPECT_FALSE(missed(MakeTokens(500, 9)).divergence.has_value());  // and it needs all pages
  MissCounts evicted = Missed(96, MissCause::kEvicted);
  evicted[MissCause::kNewTokens] = 4;
  EXPECT_EQ(missed(trunk).missed.tokens, evicted.tokens) << "known of whole pages";
  size_t all = 0;
  for (const size_t tokens : loop_->Stats().missed_total.tokens) all += tokens;
  EXPECT_EQ(all, loop_->Stats().computed_tokens_total);
}

TEST_F(StepLoopTest, SaysHowFarARequestHasComeAndWhereInTheTree) {
  Start(64);
  const Tokens trunk = MakeTokens(64, 1);
  const Job first = Submit(trunk, 1);
  RunUntilIdle();
  const Job second = Submit(Concat(trunk, MakeTokens(20, 2)), 3);
  RunUntilIdle();

  const std::vector<GenerateTimings> stages = second.sink->stages();
  ASSERT_EQ(stages.size(), 2u);
  EXPECT_EQ(stages[0].cached_tokens, 64u);
  EXPECT_EQ(stages[0].computed_tokens, 0u);
  EXPECT_EQ(stages[0].tree_node, first.sink->timings().tree_node) << "it starts where that ended";
  EXPECT_EQ(stages[1].computed_tokens, 20u);
  EXPECT_EQ(stages[1].missed.tokens, Missed(20, MissCause::kNewTokens).tokens);
  const GenerateTimings end = second.sink->timings();
  EXPECT_EQ(stages[1].tree_node, end.tree_node) << "its own node grows";
  const TreeView view = loop_->cache().View({});
  const auto is_end = [&](const TreeView::Node& node) { return node.id == end.tree_node; };
  const auto node = std::find_if(view.nodes.begin(), view.nodes.end(), is_end);
  ASSERT_NE(node, view.nodes.end());
  EXPECT_EQ(node->begin + node->num_tokens, 64u + 20 + 2) << "the last token was never fed";
}

TEST_F(StepLoopTest, WhatNeverHadAPlaceReachedNothing) {
  Start(4);
  const Job waiting = Submit(MakeTokens(10, 1), 1);
  Cancel(waiting.id);
  loop_->Deliver();
  EXPECT_TRUE(waiting.sink->finished());
  EXPECT_TRUE(waiting.sink->stages().empty());
  EXPECT_EQ(waiting.sink->timings().tree_node, 0u);
}

TEST_F(StepLoopTest, WhatAnotherScopeOfTheClientHasIsExplainedByThat) {
  Start(64);
  Submit(MakeTokens(100, 1), 1);
  RunUntilIdle();
  GenerateRequest request = Greedy(Concat(MakeTokens(100, 1), MakeTokens(20, 2)));
  request.scope = "salted";
  request.wider_scope = "";
  const auto missed = [&] {
    const Job job = Submit(request, 1);
    RunUntilIdle();
    ExpectComplete(job);
    return job.sink->timings().missed.tokens;
  };
  MissCounts expected = Missed(100, MissCause::kScope);
  expected[MissCause::kCold] = 20;
  EXPECT_EQ(missed(), expected.tokens);
  EXPECT_EQ(missed(), Missed(1, MissCause::kNewTokens).tokens) << "now its own scope has them";
  request.scope = "another";
  request.wider_scope.reset();
  EXPECT_EQ(missed(), Missed(120, MissCause::kCold).tokens);
}

TEST_F(StepLoopTest, WithoutTheCacheThatIsWhy) {
  Start(16, kLimits, Finished::kGo);
  const Job nothing_kept = Submit(MakeTokens(40, 1), 1);
  RunUntilIdle();
  EXPECT_EQ(nothing_kept.sink->timings().missed.tokens, Missed(40, MissCause::kDisabled).tokens);
  Start(16);
  GenerateRequest request = Greedy(MakeTokens(40, 1));
  request.cache_prompt = false;
  const Job declined = Submit(request, 1);
  RunUntilIdle();
  EXPECT_EQ(declined.sink->timings().missed.tokens, Missed(40, MissCause::kDisabled).tokens);
}

TEST_F(StepLoopTest, ScopesShareNothing) {
  Start(64);
  GenerateRequest request = Greedy(MakeTokens(100, 1));
  for (const char* scope : {"a", "b", "a"}) {
    request.scope = scope;
    const bool again = num_rows_ > 0 && request.scope == "a";
    const Job job = Submit(request, 3);
    RunUntilIdle();
    ExpectComplete(job);
    EXPECT_EQ(job.sink->timings().cached_tokens, again ? 99u : 0u);
  }
}

// --- Joining ---

class BranchesTest : public StepLoopTest {
 protected:
  static constexpr size_t kTrunk = 2048, kOwn = 32, kBranches = 8;

  static Tokens Branch(uint64_t branch) {
    return Concat(MakeTokens(kTrunk, 1), MakeTokens(kOwn, 100 + branch));
  }
  // Submits the branches, `gap` steps apart.
  std::vector<Job> SubmitBranches(uint64_t first, size_t gap) {
    std::vector<Job> jobs;
    for (uint64_t i = 0; i < kBranches; i++) {
      jobs.push_back(Submit(Branch(first + i), 8));
      for (size_t step = 0; step < gap; step++) Step();
    }
    return jobs;
  }
};

TEST_F(BranchesTest, AColdTrunkIsComputedOnceAWarmOneNotAtAll) {
  for (size_t step_tokens : {512u, 1000u, 77u, 4096u}) {
    for (size_t gap : {0u, 1u, 3u}) {
      Start(256, {.step_tokens = step_tokens});
      const std::vector<Job> cold = SubmitBranches(0, gap);
      RunUntilIdle();
      EXPECT_LE(Computed(cold), kTrunk + kBranches * kOwn) << step_tokens << " gap " << gap;
      const std::vector<Job> warm = SubmitBranches(50, gap);
      RunUntilIdle();
      // The branches' own tokens are random, so two may share a few first ones.
      EXPECT_LE(Computed(warm), kBranches * kOwn);
      EXPECT_GT(Computed(warm), kBranches * (kOwn - 4));
      for (const Job& job : cold) ExpectComplete(job);
      for (const Job& job : warm) ExpectComplete(job);
      EXPECT_EQ(loop_->Stats().computed_tokens_total, Computed(cold) + Computed(warm));
      EXPECT_EQ(loop_->Stats().recomputed_tokens_total, 0u);
      ExpectNothingHeld();
    }
  }
}

TEST_F(BranchesTest, AllJoinInTheStepAfterTheTrunkIsDone) {
  Start(256);
  const std::vector<Job> jobs = SubmitBranches(0, 0);
  for (int step = 0; step < 4; step++) {
    Step();
    EXPECT_EQ(num_sequences_, 1u);
    EXPECT_EQ(loop_->CacheStats().num_leases, 1u) << "who waits holds nothing";
  }
  Step();
  EXPECT_EQ(num_sequences_, kBranches);
  EXPECT_EQ(num_rows_, kTrunk + kBranches * kOwn);
}

TEST_F(BranchesTest, EqualPromptsRunOneRowEach) {
  Start(256);
  std::vector<Job> jobs;
  for (size_t i = 0; i < kBranches; i++) jobs.push_back(Submit(Branch(0), 8));
  RunUntilIdle();
  EXPECT_EQ(Computed(jobs), kTrunk + kOwn + (kBranches - 1));
  for (const Job& job : jobs) ExpectComplete(job);
}

TEST_F(BranchesTest, BranchesOfBranchesJoinMidPage) {
  // All share 1000; pairs share 1000 + 45 more.
  Start(256);
  std::vector<Job> jobs;
  for (uint64_t i = 0; i < 8; i++) {
    const Tokens pair =
        Concat(MakeTokens(1000, 1), Concat({TokenId(i / 2)}, MakeTokens(44, i / 2)));
    jobs.push_back(Submit(Concat(pair, Concat({TokenId(i % 2)}, MakeTokens(9, i))), 4));
  }
  RunUntilIdle();
  EXPECT_EQ(Computed(jobs), 1000u + 4 * 45 + 8 * 10);
  for (const Job& job : jobs) ExpectComplete(job);
}

TEST_F(BranchesTest, WhenTheLeaderDiesTheNextGoesOnFromWhatItLeft) {
  Start(256);
  const std::vector<Job> jobs = SubmitBranches(0, 0);
  Step();
  Step();
  Cancel(jobs[0].id);
  RunUntilIdle();
  EXPECT_EQ(jobs[0].sink->reason(), FinishReason::kCancelled);
  EXPECT_EQ(jobs[0].sink->timings().computed_tokens, 1024u);
  EXPECT_LE(Computed(jobs), kTrunk + kBranches * kOwn);
  for (size_t i = 1; i < jobs.size(); i++) ExpectComplete(jobs[i]);
}

TEST_F(BranchesTest, UnrelatedRequestsDoNotWait) {
  Start(256, {.step_tokens = 512, .mixed_step_tokens = 128});
  const std::vector<Job> jobs = SubmitBranches(0, 0);
  Step();
  const Job other = Submit(Concat({99}, MakeTokens(9, 77)), 3);
  for (int i = 0; i < 20 && !other.sink->finished(); i++) Step();
  ASSERT_TRUE(other.sink->finished());
  EXPECT_FALSE(jobs[1].sink->finished());
  ExpectComplete(other);
  RunUntilIdle();
}

// --- Memory ---

TEST_F(StepLoopTest, ARequestWaitsUntilItsPagesAreThereAndNobodyOvertakesIt) {
  Start(8);
  const Job a = Submit(MakeTokens(100, 1), 20);               // 4 pages
  const Job b = Submit(Concat({1}, MakeTokens(159, 2)), 20);  // 5: has to wait
  const Job c = Submit(Concat({2}, MakeTokens(9, 3)), 20);    // 1: would fit beside a
  Step();
  EXPECT_EQ(loop_->Stats().running, 1u);
  while (!a.sink->finished()) Step();
  EXPECT_EQ(c.sink->tokens().size(), 0u);
  EXPECT_EQ(loop_->CacheStats().lookups, 1u) << "who waits for pages has not been served";
  RunUntilIdle();
  EXPECT_EQ(loop_->CacheStats().lookups, 3u);
  for (const Job* job : {&a, &b, &c}) ExpectComplete(*job);
  EXPECT_EQ(loop_->Stats().preemptions_total, 0u);
}

TEST_F(StepLoopTest, PagesThatTwoComputedLetTheNextOneIn) {
  Start(5);
  GenerateRequest request = Greedy(MakeTokens(40, 1));
  request.cache_prompt = false;
  const Job a = Submit(request, 20), b = Submit(request, 20);  // two pages each
  const Job c = Submit(Concat({1}, MakeTokens(63, 2)), 1);     // two, and one is left
  Step();
  EXPECT_EQ(loop_->Stats().waiting, 1u);
  EXPECT_EQ(loop_->CacheStats().pages_deduplicated, 1u);
  Step();
  EXPECT_TRUE(c.sink->finished());
  RunUntilIdle();
  for (const Job* job : {&a, &b, &c}) ExpectComplete(*job);
}

TEST_F(StepLoopTest, PreemptionLosesNothing) {
  Start(10);
  std::vector<Job> jobs;
  for (uint64_t i = 0; i < 4; i++) {
    GenerateRequest request = Greedy(Concat({TokenId(i)}, MakeTokens(39, i)));
    request.sampling.temperature = 0.8f;
    request.sampling.seed = i;
    request.sampling.repetition_penalty = 1.2f;
    jobs.push_back(Submit(request, 150));  // 6 pages each in the end
  }
  while (!jobs[0].sink->finished()) Step();
  EXPECT_GT(loop_->Stats().preemptions_total, 0u);
  EXPECT_EQ(jobs[0].sink->timings().recomputed_tokens, 0u) << "the oldest is never preempted";
  RunUntilIdle();
  for (const Job& job : jobs) ExpectComplete(job);
  EXPECT_EQ(loop_->Stats().generated_tokens_total, 4u * 150);
  ExpectNothingHeld();
}

TEST_F(StepLoopTest, APreemptedRequestFindsItsRowsAgainWhileTheyAreResident) {
  for (const bool cache_prompt : {true, false}) {
    Start(12);
    GenerateRequest request = Greedy(Concat({2}, MakeTokens(159, 2)));
    request.cache_prompt = cache_prompt;
    const Job a = Submit(Concat({1}, MakeTokens(63, 1)), 100);
    const Job b = Submit(request, 100);
    RunUntilIdle();
    EXPECT_GE(loop_->Stats().preemptions_total, 1u);
    ExpectComplete(a);
    ExpectComplete(b);
    // a grew by a few pages; the rest of b stayed.
    EXPECT_LT(b.sink->timings().recomputed_tokens, 160u);
    EXPECT_EQ(b.sink->timings().computed_tokens, 160u);
  }
}

TEST_F(StepLoopTest, ALoneRequestThatOutgrowsTheBudgetEndsWithLength) {
  Start(4);
  const Job job = Submit(MakeTokens(70, 1), 1000);
  RunUntilIdle();
  EXPECT_EQ(job.sink->reason(), FinishReason::kLength);
  // 128 rows, and one token that was never fed.
  EXPECT_EQ(job.sink->tokens(), ReferenceTokens(model_, job.request, 128 - 70 + 1));
  ExpectNothingHeld();
}

// Each of the short ones holds but the page that all share, so that the long one can come to hold
// all three while another runs.
TEST_F(StepLoopTest, WhoOutgrowsTheBudgetBesideOthersThatHoldNothingElseEndsWithLength) {
  Start(3, {.max_running = 2});
  std::vector<Job> shorts;
  for (int i = 0; i < 80; i++) shorts.push_back(Submit(MakeTokens(32, 1), 1));
  GenerateRequest request = Greedy(MakeTokens(32, 1));
  request.cache_prompt = false;
  const Job outgrown = Submit(request, 200);
  RunUntilIdle();
  for (const Job& job : shorts) ExpectComplete(job);
  EXPECT_EQ(outgrown.sink->reason(), FinishReason::kLength);
  EXPECT_EQ(outgrown.sink->tokens(), ReferenceTokens(model_, request, 96 - 32 + 1));
  EXPECT_EQ(loop_->Stats().preemptions_total, 0u);
  ExpectNothingHeld();
}

// Submit refuses such a prompt; but to abort is no answer, whoever lets one in.
TEST_F(StepLoopTest, WhatCannotBeHeldEvenAloneEndsWithLength) {
  Start(4);
  const Job larger = Submit(MakeTokens(129, 1), 5);
  const Job next = Submit(MakeTokens(20, 2), 5);
  RunUntilIdle();
  EXPECT_EQ(larger.sink->reason(), FinishReason::kLength);
  EXPECT_TRUE(larger.sink->tokens().empty());
  ExpectComplete(next);
}

TEST_F(StepLoopTest, ANewcomerTakesNoPageThatARunningRequestNeedsNow) {
  Start(5);
  const Job old = Submit(MakeTokens(64, 1), 10);
  Step();  // its next row begins its third page
  const Job newcomer = Submit(Concat({1}, MakeTokens(95, 2)), 1);  // three pages: so many are free
  RunUntilIdle();
  ExpectComplete(old);
  ExpectComplete(newcomer);
  EXPECT_EQ(loop_->Stats().preemptions_total, 0u);
}

TEST_F(StepLoopTest, APromptThatFillsTheBudgetRunsWhateverTheCacheHolds) {
  for (size_t shared : {0u, 1u, 31u, 32u, 33u, 100u, 127u, 128u}) {
    Start(4);
    Submit(MakeTokens(128, 1), 1);
    RunUntilIdle();
    const Tokens head = [&] {
      Tokens tokens = MakeTokens(128, 1);
      tokens.resize(shared);
      return tokens;
    }();
    const Job job = Submit(Concat(head, MakeTokens(128 - shared, 2)), 1);
    RunUntilIdle();
    ExpectComplete(job);
  }
}

TEST_F(StepLoopTest, GrowingIntoTheWholeBudgetFromAPartlySharedPage) {
  for (size_t shared : {1u, 31u, 33u, 60u}) {
    Start(4);
    Submit(MakeTokens(64, 1), 30);
    RunUntilIdle();
    Tokens head = MakeTokens(64, 1);
    head.resize(shared);
    const Job job = Submit(Concat(head, MakeTokens(70 - shared, 2)), 128 - 70 + 1);
    RunUntilIdle();
    ExpectComplete(job);
  }
}

// --- Cancel, reset ---

TEST_F(StepLoopTest, CancelFreesAtOnce) {
  Start(64);
  const Job running = Submit(MakeTokens(600, 1), 30);
  const Job waiting = Submit(MakeTokens(600, 1), 30);
  Step();
  Cancel(waiting.id);
  Cancel(running.id);
  Cancel(running.id);
  Cancel(RequestId(12345));
  ExpectNothingHeld();
  EXPECT_TRUE(loop_->idle());
  EXPECT_EQ(loop_->Deliver(), 2u);
  EXPECT_EQ(running.sink->reason(), FinishReason::kCancelled);
  EXPECT_EQ(waiting.sink->reason(), FinishReason::kCancelled);
  EXPECT_EQ(running.sink->timings().computed_tokens, 512u);
  EXPECT_EQ(loop_->Stats().cancelled_total, 2u);
}

TEST_F(StepLoopTest, ResetWhileRunningChangesNoText) {
  Start(64);
  const Job a = Submit(MakeTokens(300, 1), 30);
  Step();
  Step();
  const Job b = Submit(Concat(MakeTokens(300, 1), MakeTokens(10, 5)), 30);
  loop_->ResetCache();
  RunUntilIdle();
  ExpectComplete(a);
  ExpectComplete(b);
  ExpectNothingHeld();
}

// Everything at once: a forest of prompts, and prompts that go on with what another one generates,
// small caches, small budgets, cancels, resets. Every request's text is the reference's, or the
// beginning of it; nothing hangs; nothing leaks.
TEST_F(StepLoopTest, RandomTraffic) {
  std::mt19937 random(5);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  size_t preemptions = 0, cancels = 0, outgrown = 0, cached = 0, deduplicated = 0;
  for (int round = 0; round < 60; round++) {
    const size_t num_pages = 6 + below(30);
    Start(num_pages, {.step_tokens = 1 + below(150),
                      .mixed_step_tokens = 1 + below(60),
                      .max_running = 1 + below(12)});
    std::vector<Job> jobs;
    const auto make = [&] {
      GenerateRequest request;
      request.sampling.temperature = below(2) == 0 ? 0.0f : 1.0f;
      request.sampling.seed = below(1000);
      if (!jobs.empty() && below(3) == 0) {
        // Another one's conversation, cut anywhere: both compute the same rows, or join.
        const Job& other = jobs[below(jobs.size())];
        request = other.request;
        request.prompt = Concat(other.request.prompt, other.sink->tokens());
        request.prompt.resize(std::min(1 + below(request.prompt.size()), num_pages * kPageTokens));
        if (below(2) == 0) request.prompt.back() = static_cast<TokenId>(below(100));
      } else {
        request.prompt = Concat(MakeTokens(below(90), below(2)), MakeTokens(below(60), below(3)));
        request.prompt = Concat(request.prompt, MakeTokens(1 + below(20), 20 + below(50)));
      }
      request.cache_prompt = below(10) != 0;
      request.scope = below(8) == 0 ? "other" : "";
      request.client = {.tenant = std::to_string(below(2)), .session = std::to_string(below(3))};
      request.priority = below(4) == 0 ? static_cast<int32_t>(below(3)) - 1 : 0;
      return request;
    };
    while (jobs.size() < 40 || !loop_->idle()) {
      if (jobs.size() < 40 && below(3) == 0) {
        jobs.push_back(Submit(make(), 1 + below(below(4) == 0 ? 300 : 80)));
      }
      if (below(12) == 0 && !jobs.empty()) Cancel(jobs[below(jobs.size())].id);
      if (below(100) == 0) {
        deduplicated += loop_->CacheStats().pages_deduplicated;  // it counts since the last reset
        loop_->ResetCache();
      }
      const size_t rows_before = num_rows_;
      const bool has_work = !loop_->idle();
      Step();
      // What outgrows the cache ends without a row; else no step is idle.
      if (has_work && !loop_->idle()) {
        EXPECT_GT(num_rows_, rows_before);
      }
      ASSERT_LT(loop_->Stats().steps_total, 50000u) << "no end in sight";
    }
    for (Job& job : jobs) {
      // One token more than there are rows: the last one is never fed.
      const size_t room = num_pages * kPageTokens - job.request.prompt.size() + 1;
      if (job.max_tokens > room) {
        job.max_tokens = room;
        outgrown++;
      }
    }
    for (const Job& job : jobs) {
      ASSERT_TRUE(job.sink->finished());
      if (job.sink->reason() == FinishReason::kCancelled) {
        const Tokens all = ReferenceTokens(model_, job.request, job.max_tokens);
        const Tokens some = job.sink->tokens();
        ASSERT_LE(some.size(), all.size());
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
        cancels++;
      } else {
        ExpectComplete(job);
      }
    }
    ExpectNothingHeld();
    deduplicated += loop_->CacheStats().pages_deduplicated;
    preemptions += loop_->Stats().preemptions_total;
    cached += loop_->Stats().cached_tokens_total;
  }
  // The round trip was worth it only if all of this happened, and often.
  EXPECT_GT(preemptions, 50u);
  EXPECT_GT(cancels, 50u);
  EXPECT_GT(outgrown, 10u);
  EXPECT_GT(cached, 1000u);
  EXPECT_GT(deduplicated, 50u);
}

// A broken model: whose output is no number fails, and nobody beside it notices.
TEST_F(StepLoopTest, WhatIsNotANumberFailsItsOwnRequestAlone) {
  for (const bool is_embedding : {false, true}) {
    Start(64, {});
    model_.breaks_at = 7;
    const Job beside = Submit({1, 2, 3}, 20);
    Step();
    GenerateRequest request = Greedy({4, 7, 5});
    if (is_embedding) request.pooling = Pooling::kLast;
    const Job broken = Submit(std::move(request), 20);
    RunUntilIdle();
    ASSERT_TRUE(broken.sink->finished());
    EXPECT_EQ(broken.sink->reason(), FinishReason::kError);
    EXPECT_EQ(broken.sink->status().code(), StatusCode::kInternal);
    EXPECT_NE(broken.sink->status().message().find("NaN"), std::string::npos);
    EXPECT_TRUE(broken.sink->tokens().empty());
    model_.breaks_at.reset();
    ExpectComplete(beside);
    ExpectNothingHeld();
  }
}

}  // namespace
}  // namespace trellis
