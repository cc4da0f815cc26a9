// Who goes first, and how much of the machine each client has.
#include <deque>
#include <functional>
#include <random>

#include "engine/step_loop_fixture.h"

namespace trellis {
namespace {

class SchedulingTest : public StepLoopTest {
 protected:
  Job SubmitAs(const ClientName& client, Tokens prompt, size_t max_tokens, int32_t priority = 0) {
    GenerateRequest request = Greedy(std::move(prompt));
    request.client = client;
    request.priority = priority;
    return Submit(std::move(request), max_tokens);
  }
  // Of a request that shares nothing: what was computed for it so far.
  static size_t ComputedFor(const Job& job) {
    return job.sink->progress() + job.sink->tokens().size();
  }
  // A prompt that shares nothing with any other.
  Tokens Unique(size_t n) {
    const uint64_t k = next_unique_++;
    return Concat({TokenId(k % 101), TokenId(k / 101 % 101)}, MakeTokens(n - 2, 1000 + k));
  }
  static size_t FinishedAt(const std::vector<Job>& jobs) {
    size_t n = 0;
    for (const Job& job : jobs) n += job.sink->finished() ? 1 : 0;
    return n;
  }

  uint64_t next_unique_ = 0;
};

TEST_F(SchedulingTest, ADecodingRequestGetsATokenInEveryStepBesideALongPrompt) {
  Start(256);
  const Job decoding = Submit(MakeTokens(10, 1), 30);
  Step();
  Submit(MakeTokens(3000, 2), 2);
  for (size_t tokens = 2; tokens <= 20; tokens++) {
    const size_t before = num_rows_;
    Step();
    EXPECT_EQ(decoding.sink->tokens().size(), tokens);
    EXPECT_EQ(num_rows_ - before, 128u) << "and the prompt gets the rest of the budget";
  }
  RunUntilIdle();
  ExpectComplete(decoding);
}

TEST_F(SchedulingTest, NoMoreThanMaxRunningAtOnceAndTheOldestFirst) {
  Start(256, {.max_running = 3});
  std::vector<Job> jobs;
  for (uint64_t i = 0; i < 9; i++) {
    jobs.push_back(Submit(Concat({TokenId(i)}, MakeTokens(20, i)), 4));
  }
  Step();
  EXPECT_EQ(num_sequences_, 3u);
  EXPECT_EQ(loop_->Stats().running, 3u);
  EXPECT_EQ(loop_->Stats().waiting, 6u);
  EXPECT_EQ(jobs[2].sink->tokens().size(), 1u);
  EXPECT_EQ(jobs[3].sink->tokens().size(), 0u);
  RunUntilIdle();
  for (const Job& job : jobs) ExpectComplete(job);
}

TEST_F(SchedulingTest, TheTextOfASeedDoesNotDependOnWhatElseRuns) {
  GenerateRequest request = Greedy(MakeTokens(70, 1));
  request.sampling.temperature = 1.0f;
  request.sampling.seed = 4711;
  Start(256);
  const Job alone = Submit(request, 50);
  RunUntilIdle();
  ExpectComplete(alone);
  Start(256, {.step_tokens = 40, .mixed_step_tokens = 40});
  for (uint64_t i = 0; i < 10; i++) Submit(MakeTokens(33 * i + 1, i), 20);
  Step();
  const Job beside = Submit(request, 50);
  RunUntilIdle();
  EXPECT_EQ(beside.sink->tokens(), alone.sink->tokens());
}

TEST_F(SchedulingTest, AStepWithATargetLetsThePromptHaveAtLeastALittle) {
  loop_ = std::make_unique<StepLoop>(
      model_, MakeCache(model_, 256),
      StepLoop::Options{.limits = {}, .max_inter_token = std::chrono::duration<double>(1e-9)});
  const Job decoding = Submit(MakeTokens(10, 1), 400);
  const Job prompt = Submit(Unique(3000), 2);
  RunUntilIdle();
  ExpectComplete(decoding);
  ExpectComplete(prompt);
  EXPECT_EQ(loop_->Stats().mixed_step_tokens, kLeastChunk);
}

// --- Order ---

TEST_F(SchedulingTest, WhoIsCachedGoesFirst) {
  Start(256, {.max_running = 1});
  const Tokens harness = Unique(300);
  Submit(harness, 1);
  RunUntilIdle();
  const Job running = Submit(Unique(100), 5);
  Step();
  const Job cold = Submit(Unique(100), 2);
  const Job warm = Submit(Concat(harness, MakeTokens(50, 7)), 2);
  while (!warm.sink->finished()) Step();
  EXPECT_FALSE(cold.sink->finished());
  RunUntilIdle();
  EXPECT_EQ(warm.sink->timings().cached_tokens, 300u);
  ExpectComplete(cold);
}

TEST_F(SchedulingTest, WhatWasEvictedMeanwhileCountsNoLonger) {
  Start(16, {.max_running = 1});  // 512 rows
  const Tokens harness = Unique(300);
  Submit(harness, 1);
  RunUntilIdle();
  const Job large = Submit(Unique(480), 20);  // evicts the harness
  Step();
  const Job cold = Submit(Unique(100), 2);
  const Job was_warm = Submit(Concat(harness, MakeTokens(50, 7)), 2);
  while (!cold.sink->finished()) Step();
  EXPECT_FALSE(was_warm.sink->finished()) << "both are cold now, and it is younger";
  RunUntilIdle();
}

TEST_F(SchedulingTest, AShortPromptPassesALongOne) {
  Start(512);
  const Job longer = Submit(Unique(3500), 1);
  Step();
  const Job shorter = Submit(Unique(100), 1);
  Step();
  EXPECT_TRUE(shorter.sink->finished());
  EXPECT_FALSE(longer.sink->finished());
  RunUntilIdle();
  ExpectComplete(longer);
}

TEST_F(SchedulingTest, SmallerPrioritiesGoFirstAndTakePlaces) {
  Start(256, {.max_running = 2});
  const Job a = SubmitAs({}, Unique(100), 50, 5), b = SubmitAs({}, Unique(100), 50, 5);
  Step();
  const Job later = SubmitAs({}, Unique(100), 2, 1), urgent = SubmitAs({}, Unique(100), 2, -3);
  Step();
  EXPECT_EQ(urgent.sink->tokens().size(), 1u);
  EXPECT_EQ(later.sink->tokens().size(), 1u);
  RunUntilIdle();
  for (const Job* job : {&a, &b, &later, &urgent}) ExpectComplete(*job);
  EXPECT_EQ(a.sink->timings().recomputed_tokens + b.sink->timings().recomputed_tokens, 0u)
      << "who made room found everything again";
}

// The prefill that others wait for is as urgent as they are: else one of the middle would hold up
// the most urgent.
TEST_F(SchedulingTest, AnUrgentRequestLendsItsPriorityToThePrefillItWaitsFor) {
  Start(1024);
  const Tokens harness = Unique(3000);
  const Job background = SubmitAs({}, harness, 1, 9);
  Step();
  const Job urgent = SubmitAs({}, Concat(harness, MakeTokens(20, 5)), 1, 0);
  const Job middle = SubmitAs({}, Unique(3900), 1, 5);
  while (!urgent.sink->finished()) Step();
  EXPECT_FALSE(middle.sink->finished());
  EXPECT_EQ(urgent.sink->timings().computed_tokens, 20u);
  RunUntilIdle();
}

// --- Shares ---

// Keeps `depth` requests of each of the clients outstanding for `num_steps` steps, and returns what
// was computed for each from the middle on.
struct Load {
  ClientName client;
  size_t depth, prompt, generated;
};

class SharesTest : public SchedulingTest {
 protected:
  std::vector<double> Shares(const std::vector<Load>& loads, size_t num_steps) {
    std::vector<std::deque<Job>> open(loads.size());
    std::vector<size_t> done(loads.size(), 0), at_half(loads.size(), 0);
    const auto computed = [&](size_t i) {
      size_t sum = done[i];
      for (const Job& job : open[i]) sum += ComputedFor(job);
      return sum;
    };
    for (size_t step = 0; step < num_steps; step++) {
      for (size_t i = 0; i < loads.size(); i++) {
        std::erase_if(open[i], [&](const Job& job) {
          if (!job.sink->finished()) return false;
          done[i] += ComputedFor(job);
          return true;
        });
        while (open[i].size() < loads[i].depth) {
          open[i].push_back(SubmitAs(loads[i].client, Unique(loads[i].prompt), loads[i].generated));
        }
        if (step == num_steps / 2) at_half[i] = computed(i);
      }
      Step();
    }
    std::vector<double> shares;
    double sum = 0;
    for (size_t i = 0; i < loads.size(); i++) {
      shares.push_back(static_cast<double>(computed(i) - at_half[i]));
      sum += shares.back();
    }
    for (double& share : shares) share /= sum;
    return shares;
  }
};

TEST_F(SharesTest, TwoTenantsThatAlwaysWantMoreHaveAHalfEach) {
  const std::vector<std::pair<Load, Load>> pairs = {
      // Many short ones against a few long ones; prompts against generation; a flood.
      {{{"a", ""}, 30, 60, 10}, {{"b", ""}, 3, 900, 10}},
      {{{"a", ""}, 20, 400, 2}, {{"b", ""}, 100, 20, 60}},
      {{{"a", ""}, 200, 100, 30}, {{"b", ""}, 100, 100, 30}},
  };
  for (const size_t max_running : {8u, 64u}) {
    for (const auto& [a, b] : pairs) {
      Start(300, {.step_tokens = 128,
                  .mixed_step_tokens = 64,
                  .max_running = max_running,
                  .quantum = {.tokens = 512}});
      const std::vector<double> shares = Shares({a, b}, 6000);
      EXPECT_NEAR(shares[0], 0.5, 0.025) << max_running << " places, prompts of " << a.prompt;
    }
  }
}

TEST_F(SharesTest, SessionsOfATenantShareEvenlyAndMakeNoTenantLarger) {
  Start(300, {.step_tokens = 128, .mixed_step_tokens = 64, .quantum = {.tokens = 512}});
  const std::vector<double> shares = Shares({{{"a", "1"}, 10, 100, 20},
                                             {{"a", "2"}, 2, 500, 20},
                                             {{"a", "3"}, 10, 100, 20},
                                             {{"b", "1"}, 10, 100, 20}},
                                            12000);
  EXPECT_NEAR(shares[3], 0.5, 0.025);
  for (size_t i = 0; i < 3; i++) EXPECT_NEAR(shares[i], 0.5 / 3, 0.025);
}

TEST_F(SharesTest, WhatOneDoesNotUseIsTheOthers) {
  Start(300, {.step_tokens = 128, .mixed_step_tokens = 64, .quantum = {.tokens = 512}});
  const Job rare = SubmitAs({"b", ""}, Unique(100), 5);
  const std::vector<double> shares = Shares({{{"a", ""}, 30, 100, 20}}, 500);
  EXPECT_EQ(shares[0], 1.0);
  EXPECT_TRUE(rare.sink->finished());
  EXPECT_GT(num_rows_, 500u * 60) << "no step was held back for who is not there";
}

// --- Waiting ---

// A cold request among an endless stream of others that have more locality, of every kind; what is
// computed until it is done stays within the bound of precedence.h.
class BoundedWaitTest : public SchedulingTest {
 protected:
  size_t RowsUntilDone(const std::function<ClientName(size_t)>& client_of, int32_t priority = 0) {
    const Limits limits{
        .step_tokens = 128, .mixed_step_tokens = 64, .max_running = 4, .quantum = {.tokens = 256}};
    Start(200, limits);
    const Tokens harness = Unique(500);
    Submit(harness, 1);
    RunUntilIdle();
    std::vector<Job> others;
    size_t arrived = 0;
    const auto arrive = [&] {
      std::erase_if(others, [](const Job& job) { return job.sink->finished(); });
      while (others.size() < 20) {
        others.push_back(
            SubmitAs(client_of(arrived), Concat(harness, MakeTokens(40, arrived)), 10, priority));
        arrived++;
      }
    };
    for (int step = 0; step < 100; step++) arrive(), Step();
    const Job cold = SubmitAs({"cold", "its own"}, Unique(600), 5);
    const size_t before = num_rows_;
    for (int step = 0; step < 5000 && !cold.sink->finished(); step++) arrive(), Step();
    EXPECT_TRUE(cold.sink->finished()) << "starved";
    return num_rows_ - before;
  }
};

TEST_F(BoundedWaitTest, OfTheSameSession) {
  EXPECT_LT(RowsUntilDone([](size_t) { return ClientName{"cold", "its own"}; }), 4000u);
}
TEST_F(BoundedWaitTest, OfAnotherSession) {
  EXPECT_LT(RowsUntilDone([](size_t) { return ClientName{"cold", "other"}; }), 4000u);
}
TEST_F(BoundedWaitTest, OfAnotherTenant) {
  EXPECT_LT(RowsUntilDone([](size_t) { return ClientName{"other", "other"}; }), 4000u);
}
TEST_F(BoundedWaitTest, OfSessionsThatAreMadeUpForEachRequest) {
  EXPECT_LT(RowsUntilDone([](size_t i) { return ClientName{"cold", std::to_string(i)}; }), 40000u);
}
TEST_F(BoundedWaitTest, OfAnotherTenantThatClaimsToBeUrgent) {
  EXPECT_LT(RowsUntilDone(
                [](size_t i) {
                  return ClientName{"other", std::to_string(i)};
                },
                -9),
            4000u);
}

// Two that do not fit together, and both lead in turns: they must not throw each other out for
// ever.
TEST_F(SchedulingTest, TwoThatDoNotFitTogetherBothEnd) {
  Start(20, {.step_tokens = 64, .mixed_step_tokens = 32, .quantum = {.tokens = 16}});
  const Job a = SubmitAs({"a", ""}, Unique(500), 120), b = SubmitAs({"b", ""}, Unique(500), 120);
  RunUntilIdle();
  ExpectComplete(a);
  ExpectComplete(b);
}

TEST_F(SchedulingTest, EveryMemoryDownToWhatOneNeedsIsEnoughForAll) {
  for (size_t num_pages = 4; num_pages < 16; num_pages++) {
    Start(num_pages, {.step_tokens = 64, .mixed_step_tokens = 32, .quantum = {.tokens = 64}});
    std::vector<Job> jobs;
    for (uint64_t i = 0; i < 24; i++) {
      jobs.push_back(SubmitAs({std::to_string(i % 2), std::to_string(i % 3)}, Unique(60 + i), 40,
                              static_cast<int32_t>(i % 4)));
    }
    RunUntilIdle();
    for (const Job& job : jobs) ExpectComplete(job);
    ExpectNothingHeld();
  }
}

}  // namespace
}  // namespace trellis
