// The same through the whole engine: whatever it schedules, shares, evicts and preempts, every row
// of logits that it gets from the model is a row of a cold run.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/test_support.h"
#include "subjects.h"

namespace trellis {
namespace {

// The model, and every row of logits it was asked for.
class RecordingModel : public Model {
 public:
  struct Row {
    size_t position;
    TokenId token;
    std::vector<float> logits;
  };
  explicit RecordingModel(Model& model) : model_(model) {}

  const ModelSpec& spec() const override { return model_.spec(); }
  PageLayout page_layout() const override { return model_.page_layout(); }
  void Forward(std::span<const SequenceRows> batch, float* logits) override {
    model_.Forward(batch, logits);
    max_batch_ = std::max(max_batch_, batch.size());
    for (const SequenceRows& sequence : batch) {
      for (const size_t r : sequence.logit_rows) {
        rows_.push_back({sequence.first_position + r,
                         sequence.tokens[r],
                         {logits, logits + spec().vocab_size}});
        logits += spec().vocab_size;
      }
    }
  }
  const std::vector<Row>& rows() const { return rows_; }
  size_t max_batch() const { return max_batch_; }

 private:
  Model& model_;
  std::vector<Row> rows_;
  size_t max_batch_ = 0;
};

constexpr size_t kRequests = 8, kGenerated = 60, kPages = 20;

// Three trunks, branches at odd places; together more pages than there are.
std::vector<Tokens> BranchingPrompts(const Subject& subject) {
  std::vector<Tokens> prompts;
  for (size_t i = 0; i < kRequests; i++) {
    const Tokens trunk = subject.Turned(i % 3, 50 - i), own = subject.Turned(i + 3, 25 + 7 * i);
    prompts.push_back(Concat(trunk, own));
  }
  return prompts;
}

void ExpectGreedy(const ColdRun& cold, size_t first_generated, size_t vocab_size) {
  for (size_t r = first_generated; r < cold.tokens().size(); r++) {
    const float* before = cold.row(r - 1);
    const float* top = std::max_element(before, before + vocab_size);
    EXPECT_EQ(cold.tokens()[r], static_cast<TokenId>(top - before)) << r;
  }
}

class EngineEquality : public testing::TestWithParam<SubjectId> {};

TEST_P(EngineEquality, EveryRowIsOneOfAColdRun) {
  const auto subject = LoadSubject(GetParam(), 2);
  ASSERT_TRUE(subject.ok()) << subject.status().message();
  RecordingModel model(*subject->model);
  const std::vector<Tokens> prompts = BranchingPrompts(*subject);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  {
    auto engine = Engine::Create(model, MakeCacheFor(model, kPages),
                                 {.step_tokens = 50, .mixed_step_tokens = 37});
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    for (const Tokens& prompt : prompts) {
      GenerateRequest request;
      request.prompt = prompt;
      request.max_tokens = kGenerated;
      request.sampling.temperature = 0;
      sinks.push_back(std::make_shared<RecordingSink>());
      ASSERT_TRUE((*engine)->Submit(request, sinks.back()).ok());
    }
    for (const auto& sink : sinks) sink->WaitFinished();
    // It was not all too easy.
    const PageCacheStats cache = (*engine)->CacheStats();
    EXPECT_GT(cache.pages_evicted, 0u);
    EXPECT_GT(cache.rows_copied, 0u);
    EXPECT_GT(cache.tokens_matched, 0u);
    EXPECT_GT(model.max_batch(), 2u);
    EXPECT_GT((*engine)->Stats().preemptions_total, 0u);
  }

  std::vector<ColdRun> colds;
  for (size_t i = 0; i < kRequests; i++) {
    SCOPED_TRACE(i);
    const Tokens generated = sinks[i]->tokens();
    EXPECT_EQ(generated.size(), kGenerated);
    colds.emplace_back(*subject->model, Concat(prompts[i], generated));
    ExpectGreedy(colds[i], prompts[i].size(), model.spec().vocab_size);
  }
  EXPECT_GE(model.rows().size(), kRequests * kGenerated);
  for (const RecordingModel::Row& row : model.rows()) {
    const bool found = std::any_of(colds.begin(), colds.end(), [&](const ColdRun& cold) {
      return row.position < cold.tokens().size() && cold.tokens()[row.position] == row.token &&
             cold.CountDifferent(row.position, 1, row.logits.data()) == 0;
    });
    EXPECT_TRUE(found) << "position " << row.position << ", token " << row.token;
  }
}

INSTANTIATE_TEST_SUITE_P(Logits, EngineEquality, testing::ValuesIn(AllSubjects()),
                         [](const auto& info) { return SubjectName(info.param); });

}  // namespace
}  // namespace trellis
