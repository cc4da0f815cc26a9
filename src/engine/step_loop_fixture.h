// StepLoopTest: a StepLoop over a FakeModel, and what its requests should have come to.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "engine/step_loop.h"
#include "engine/test_support.h"

namespace trellis {

// A request and what came of it.
struct Job {
  GenerateRequest request;
  std::shared_ptr<RecordingSink> sink;
  RequestId id;
  size_t max_tokens = 0;
};

class StepLoopTest : public testing::Test {
 protected:
  static constexpr Limits kLimits{};

  void Start(size_t num_pages, const Limits& limits = kLimits,
             Finished finished = Finished::kStay) {
    loop_.reset();
    loop_ = std::make_unique<StepLoop>(model_, MakeCache(model_, num_pages, finished),
                                       StepLoop::Options{.limits = limits});
    model_.on_forward = [this](std::span<const SequenceRows> batch) {
      num_sequences_ = batch.size();
      for (const SequenceRows& rows : batch) num_rows_ += rows.tokens.size();
    };
    num_rows_ = 0;
  }

  Job Submit(GenerateRequest request, size_t max_tokens) {
    Job job{.request = std::move(request),
            .sink = std::make_shared<RecordingSink>(),
            .id = RequestId(next_id_++),
            .max_tokens = max_tokens};
    auto owned = std::make_unique<Request>(job.request, job.sink, max_tokens);
    owned->id = job.id;
    loop_->Add(std::move(owned));
    return job;
  }
  Job Submit(Tokens prompt, size_t max_tokens) {
    return Submit(Greedy(std::move(prompt)), max_tokens);
  }
  static GenerateRequest Greedy(Tokens prompt) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    request.sampling.temperature = 0;
    return request;
  }

  void Cancel(RequestId id) { loop_->EndEarly(id, FinishReason::kCancelled); }

  void Step() {
    num_sequences_ = 0;
    loop_->Prepare();
    loop_->Run();
    loop_->cache().Validate();
    loop_->Deliver();
  }
  // A bound on the steps: a livelock fails the test instead of hanging it.
  void RunUntilIdle(size_t most_steps = 20000) {
    for (size_t i = 0; i < most_steps && !loop_->idle(); i++) Step();
    ASSERT_TRUE(loop_->idle()) << "no end in sight";
  }

  // It ran to its end, with the reference's text and counts that add up.
  void ExpectComplete(const Job& job) {
    ASSERT_TRUE(job.sink->finished());
    EXPECT_EQ(job.sink->reason(), FinishReason::kLength);
    EXPECT_EQ(job.sink->tokens(), ReferenceTokens(model_, job.request, job.max_tokens));
    const GenerateTimings timings = job.sink->timings();
    EXPECT_EQ(timings.prompt_tokens, job.request.prompt.size());
    EXPECT_EQ(timings.cached_tokens + timings.computed_tokens, timings.prompt_tokens);
    EXPECT_EQ(
        std::accumulate(timings.missed.tokens.begin(), timings.missed.tokens.end(), size_t{0}),
        timings.computed_tokens);
    EXPECT_EQ(timings.generated_tokens, job.max_tokens);
    EXPECT_EQ(job.sink->progress(), timings.prompt_tokens);
  }
  void ExpectNothingHeld() {
    const PageCacheStats stats = loop_->CacheStats();
    EXPECT_EQ(stats.pinned, 0u);
    EXPECT_EQ(stats.num_leases, 0u);
    EXPECT_EQ(stats.private_pages, 0u);
    EXPECT_EQ(stats.free + stats.private_pages + stats.committed, stats.capacity);
  }

  FakeModel model_;
  std::unique_ptr<StepLoop> loop_;
  uint64_t next_id_ = 1;
  size_t num_rows_ = 0;       // run since Start
  size_t num_sequences_ = 0;  // in the last step
};

inline size_t Computed(const std::vector<Job>& jobs) {
  return std::accumulate(jobs.begin(), jobs.end(), size_t{0}, [](size_t sum, const Job& job) {
    return sum + job.sink->timings().computed_tokens;
  });
}

}  // namespace trellis
