// Requests for a prompt's embedding, among others.
#include <cmath>

#include "engine/step_loop_fixture.h"

namespace trellis {
namespace {

// As the reference adds it up: row after row.
std::vector<float> Reference(const FakeModel& model, const Tokens& prompt, Pooling pooling) {
  std::vector<float> sum(model.spec().embedding_length);
  const auto hidden = model.ReferenceHidden(prompt);
  for (size_t p = pooling == Pooling::kMean ? 0 : prompt.size() - 1; p < prompt.size(); p++) {
    for (size_t d = 0; d < sum.size(); d++) sum[d] += hidden[p][d];
  }
  double squares = 0;
  for (const float x : sum) squares += static_cast<double>(x) * x;
  for (float& x : sum) x = static_cast<float>(x / std::sqrt(squares));
  return sum;
}

GenerateRequest Embed(Tokens prompt, Pooling pooling) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.pooling = pooling;
  request.cache_prompt = pooling != Pooling::kMean;
  return request;
}

void ExpectEmbedding(const FakeModel& model, const Job& job) {
  ASSERT_TRUE(job.sink->finished());
  EXPECT_EQ(job.sink->reason(), FinishReason::kStop);
  EXPECT_TRUE(job.sink->tokens().empty());
  const std::vector<float> expected = Reference(model, job.request.prompt, *job.request.pooling);
  const std::vector<float> got = job.sink->embedding();
  ASSERT_EQ(got.size(), expected.size());
  for (size_t d = 0; d < got.size(); d++) EXPECT_FLOAT_EQ(got[d], expected[d]);
}

TEST_F(StepLoopTest, AnEmbeddingIsThatOfItsTokensWhateverTheChunksAndWhoeverRunsBeside) {
  for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
    for (const size_t step_tokens : {1u, 31u, 100u, 512u}) {
      Start(64, {.step_tokens = step_tokens, .mixed_step_tokens = step_tokens});
      const Job beside = Submit(MakeTokens(70, 1), 40);
      Step();
      std::vector<Job> jobs;
      for (const size_t n : {1u, 32u, 70u, 200u})
        jobs.push_back(Submit(Embed(MakeTokens(n, 1), pooling), 1));
      RunUntilIdle();
      for (const Job& job : jobs) ExpectEmbedding(model_, job);
      ExpectComplete(beside);
      ExpectNothingHeld();
    }
  }
}

// Too little room for all at once: what is preempted runs its rows again, and counts none twice.
TEST_F(StepLoopTest, AnEmbeddingOutlivesPreemptions) {
  Start(12, {.step_tokens = 16, .mixed_step_tokens = 16});
  std::vector<Job> texts, embeddings;
  for (uint64_t i = 0; i < 4; i++) {
    embeddings.push_back(Submit(Embed(MakeTokens(150, i), Pooling::kMean), 1));
    texts.push_back(Submit(MakeTokens(40, 10 + i), 120));
  }
  RunUntilIdle();
  EXPECT_GT(loop_->Stats().preemptions_total, 0u);
  for (const Job& job : embeddings) ExpectEmbedding(model_, job);
  for (const Job& job : texts) ExpectComplete(job);
}

}  // namespace
}  // namespace trellis
