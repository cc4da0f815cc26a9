// What stays cached for a time, and what goes first.
#include "engine/step_loop_fixture.h"

namespace trellis {
namespace {

using std::chrono::seconds;

class RetentionTest : public StepLoopTest {
 protected:
  Job SubmitKept(Tokens prompt, size_t num_tokens, seconds lifetime,
                 const std::string& tenant = "") {
    GenerateRequest request = Greedy(std::move(prompt));
    request.retentions = {{.num_tokens = num_tokens, .lifetime = lifetime}};
    request.client.tenant = tenant;
    const Job job = Submit(std::move(request), 3);
    RunUntilIdle();
    ExpectComplete(job);
    return job;
  }
  void Flood(uint64_t seed) {
    for (uint64_t i = 0; i < 20; i++) {
      Submit(Concat({TokenId(i)}, MakeTokens(200, seed + i)), 3);
      RunUntilIdle();
    }
  }
  size_t Resident(const Tokens& tokens) const { return loop_->cache().MatchLength("", tokens); }
};

TEST_F(RetentionTest, WhatIsKeptOutlivesAFloodUntilItsTimeIsUp) {
  Start(32);
  const Tokens prompt = MakeTokens(200, 1);
  const Job job = SubmitKept(prompt, 150, seconds(3600));
  EXPECT_EQ(job.sink->timings().pin.num_tokens, 128u);
  Flood(100);
  EXPECT_EQ(Resident(prompt), 128u);
  EXPECT_EQ(loop_->Stats().pins, 1u);
  EXPECT_EQ(loop_->Stats().pinned_pages, 4u);

  Start(32);
  SubmitKept(prompt, 150, seconds(0));
  Step();
  EXPECT_EQ(loop_->Stats().pins, 0u);
  Flood(200);
  EXPECT_EQ(Resident(prompt), 0u);
}

TEST_F(RetentionTest, TheLongestOfSeveralIsReported) {
  Start(32);
  GenerateRequest request = Greedy(MakeTokens(200, 1));
  request.retentions = {{96, seconds(3600)}, {10000, seconds(300)}};
  const Job job = Submit(request, 3);
  RunUntilIdle();
  EXPECT_EQ(job.sink->timings().pin.num_tokens, 192u);
  EXPECT_EQ(loop_->Stats().pins, 2u);
  EXPECT_EQ(loop_->Stats().pinned_pages, 6u);
}

TEST_F(RetentionTest, OfAConversationTheLatestTurnIsKept) {
  Start(64);
  Tokens chat = MakeTokens(100, 1);
  for (uint64_t turn = 0; turn < 5; turn++) {
    const Job job = SubmitKept(chat, chat.size(), seconds(3600));
    chat = Concat(Concat(chat, job.sink->tokens()), MakeTokens(30, turn + 2));
  }
  EXPECT_EQ(loop_->Stats().pins, 1u);
}

TEST_F(RetentionTest, AllTogetherHoldNoMoreThanTheirShareAndNobodyStarves) {
  Start(40);
  for (uint64_t i = 0; i < 10; i++) {
    SubmitKept(Concat({TokenId(i)}, MakeTokens(200, i)), 1000, seconds(3600));
    EXPECT_LE(loop_->Stats().pinned_pages, 10u);
  }
  // Whoever needs all of the memory gets it.
  const Job large = Submit(MakeTokens(40 * kPageTokens - 5, 99), 5);
  RunUntilIdle();
  ExpectComplete(large);
  EXPECT_EQ(loop_->Stats().pins, 0u);
}

TEST_F(RetentionTest, GrowingIntoWhatIsKeptTakesItBack) {
  Start(16);
  SubmitKept(MakeTokens(128, 1), 128, seconds(3600));
  EXPECT_EQ(loop_->Stats().pinned_pages, 4u);
  const Job grows = Submit(Concat({1}, MakeTokens(300, 2)), 16 * kPageTokens - 301 + 1);
  RunUntilIdle();
  ExpectComplete(grows);
  EXPECT_EQ(loop_->Stats().pins, 0u);
}

TEST_F(RetentionTest, EndsByItsTenantOnlyAndByAReset) {
  Start(64);
  const PinId id = SubmitKept(MakeTokens(100, 1), 100, seconds(3600), "a").sink->timings().pin.id;
  EXPECT_EQ(loop_->Unpin("b", id), 0u);
  EXPECT_EQ(loop_->Unpin("a", id), 1u);
  SubmitKept(MakeTokens(100, 1), 100, seconds(3600), "a");
  SubmitKept(MakeTokens(100, 2), 100, seconds(3600), "a");
  EXPECT_EQ(loop_->Unpin("a", std::nullopt), 2u);
  SubmitKept(MakeTokens(100, 1), 100, seconds(3600), "a");
  loop_->ResetCache();
  EXPECT_EQ(loop_->Stats().pins, 0u);
  ExpectNothingHeld();
}

TEST_F(RetentionTest, WithoutACacheNothingIsKept) {
  Start(64, kLimits, Finished::kGo);
  const Job job = SubmitKept(MakeTokens(100, 1), 100, seconds(3600));
  EXPECT_EQ(job.sink->timings().pin.num_tokens, 0u);
  EXPECT_EQ(loop_->CacheStats().free, 64u);
}

// --- Answers that the next turn will not have ---

class DroppedAnswerTest : public RetentionTest {
 protected:
  // Runs `prompt`, then others until a few pages had to go; what is left of prompt and answer.
  size_t LeftOf(std::optional<Tokens> dropped_if_begins) {
    Start(16);
    const Job other = Submit(MakeTokens(150, 7), 1);  // used before, and to be kept
    RunUntilIdle();
    GenerateRequest request = Greedy(MakeTokens(100, 1));
    request.dropped_if_begins = std::move(dropped_if_begins);
    const Job job = Submit(request, 100);
    RunUntilIdle();
    ExpectComplete(job);
    Submit(Concat({3}, MakeTokens(159, 3)), 1);  // four pages are free, it needs five
    RunUntilIdle();
    return Resident(Concat(request.prompt, job.sink->tokens()));
  }
  Tokens Beginning(size_t n) {
    Tokens tokens = ReferenceTokens(model_, Greedy(MakeTokens(100, 1)), 100);
    tokens.resize(n);
    return tokens;
  }
};

TEST_F(DroppedAnswerTest, GoesBeforeAllElse) {
  EXPECT_EQ(LeftOf(std::nullopt), 199u) << "another one was used longer ago";
  EXPECT_LT(LeftOf(Tokens{}), 199u);
  EXPECT_EQ(LeftOf(Beginning(3)), LeftOf(Tokens{}));
  EXPECT_GE(LeftOf(Tokens{}), 128u) << "and the prompt stays";
}

TEST_F(DroppedAnswerTest, ButNotOneThatBeginsOtherwise) {
  Tokens other = Beginning(3);
  other.back() = (other.back() + 1) % 101;
  EXPECT_EQ(LeftOf(other), 199u);
  EXPECT_EQ(LeftOf(Beginning(100)), LeftOf(Tokens{}));
  EXPECT_EQ(LeftOf(Concat(Beginning(100), {1})), 199u) << "it is not that long";
}

}  // namespace
}  // namespace trellis
