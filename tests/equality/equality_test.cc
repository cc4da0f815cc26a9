// A cache hit changes nothing but time: the logits of a row are the same bits whatever was found in
// the cache, wherever chunks end, whoever shares the batch, and however many threads there are.
#include <gtest/gtest.h>

#include <map>

#include "subjects.h"

namespace trellis {
namespace {

void Ignore(size_t, size_t, const float*) {}

class Equality : public testing::TestWithParam<SubjectId> {
 protected:
  struct Loaded {
    Subject subject;
    std::unique_ptr<ColdRun> cold;  // of subject.text
  };

  void SetUp() override {
    auto& loaded = loaded_[SubjectName(GetParam())];
    if (!loaded.cold) {
      auto subject = LoadSubject(GetParam(), 2);
      ASSERT_TRUE(subject.ok()) << subject.status().message();
      loaded.subject = std::move(subject).value();
      loaded.cold = std::make_unique<ColdRun>(*loaded.subject.model, loaded.subject.text);
    }
    subject_ = &loaded.subject;
    cold_ = loaded.cold.get();
  }
  static void TearDownTestSuite() { loaded_.clear(); }

  Model& model() { return *subject_->model; }
  const Tokens& text() const { return subject_->text; }

  // Runs the first `num_tokens` tokens of `cold`; returns the lease. How many rows had to be
  // computed is `*num_computed`, and all are equal.
  Lease ExpectEqual(const ColdRun& cold, PageCache& cache, size_t num_tokens,
                    const SequenceOptions& options, size_t* num_computed = nullptr) {
    size_t computed = 0;
    Lease lease = RunSequence(model(), cache, std::span(cold.tokens()).first(num_tokens), options,
                              [&](size_t first, size_t num_rows, const float* logits) {
                                computed += num_rows;
                                EXPECT_EQ(cold.CountDifferent(first, num_rows, logits), 0u)
                                    << "of rows " << first << " to " << first + num_rows;
                              });
    if (num_computed != nullptr) *num_computed = computed;
    return lease;
  }

  // Runs the next num_rows[i] tokens of each `colds[i]` in one batch; all are equal, and committed.
  void ExpectBatchEqual(const std::vector<ColdRun>& colds, PageCache& cache,
                        std::vector<Lease>& leases, std::span<const size_t> num_rows) {
    std::vector<ChunkRows> chunks;
    std::vector<SequenceRows> batch;
    chunks.reserve(colds.size());
    for (size_t i = 0; i < colds.size(); i++) {
      ASSERT_TRUE(cache.Reserve(leases[i], leases[i].num_rows() + num_rows[i]).ok());
      chunks.emplace_back(leases[i], colds[i].tokens(), leases[i].num_rows(), num_rows[i]);
      batch.push_back(chunks[i].rows());
    }
    const size_t vocab_size = model().spec().vocab_size;
    std::vector<float> logits(std::reduce(num_rows.begin(), num_rows.end()) * vocab_size);
    model().Forward(batch, logits.data());
    const float* next = logits.data();
    for (size_t i = 0; i < colds.size(); i++) {
      EXPECT_EQ(colds[i].CountDifferent(batch[i].first_position, num_rows[i], next), 0u) << i;
      next += num_rows[i] * vocab_size;
      cache.Commit(leases[i], batch[i].tokens);
    }
  }

  static std::map<std::string, Loaded> loaded_;
  const Subject* subject_ = nullptr;
  const ColdRun* cold_ = nullptr;
};

std::map<std::string, Equality::Loaded> Equality::loaded_;

TEST_P(Equality, ColdRowsDifferFromEachOther) {
  // Else all that follows would prove nothing.
  for (size_t r = 1; r < text().size(); r++) {
    EXPECT_EQ(cold_->CountDifferent(r - 1, 1, cold_->row(r)), 1u) << r;
  }
}

TEST_P(Equality, WarmIsCold) {
  const auto cache = MakeCacheFor(model(), PagesFor(text().size()) + 2);
  size_t computed = 0;
  ExpectEqual(*cold_, *cache, text().size() - 20, {});
  ExpectEqual(*cold_, *cache, text().size(), {}, &computed);
  EXPECT_EQ(computed, 20u);
  ExpectEqual(*cold_, *cache, text().size(), {}, &computed);
  EXPECT_EQ(computed, 1u);
}

TEST_P(Equality, SplitAtEveryOffsetOfAPage) {
  // text ---+--- k = 64 ... 96 rows, then what another request went on with
  //         +--- the rest of the text, in a page of which k % 32 rows were copied
  constexpr size_t kEnd = 128, kBegin = 64;
  const auto cache = MakeCacheFor(model(), 16);
  for (size_t k = kBegin; k <= kBegin + kPageTokens; k++) {
    SCOPED_TRACE(k);
    Tokens other(text().begin(), text().begin() + static_cast<long>(k));
    other.insert(other.end(), 3, text()[k] == 5 ? 6 : 5);
    RunSequence(model(), *cache, other, {}, Ignore);
    ASSERT_EQ(cache->MatchLength("", text()), k);
    // Not published: else the next round would find it.
    size_t computed = 0;
    ExpectEqual(*cold_, *cache, kEnd, {.publish = Publish::kNothing}, &computed);
    EXPECT_EQ(computed, kEnd - k);
  }
  EXPECT_GT(cache->Stats().rows_copied, 0u);
}

TEST_P(Equality, AnyChunkSize) {
  for (const size_t chunk : {1, 2, 3, 7, 16, 31, 32, 33, 65, 127}) {
    SCOPED_TRACE(chunk);
    const auto cache = MakeCacheFor(model(), PagesFor(text().size()));
    ExpectEqual(*cold_, *cache, text().size(), {.chunk = chunk});
  }
}

TEST_P(Equality, LogitsOfTheLastRowAlone) {
  // Then the other rows skip the end of the last layer.
  for (const size_t end : {size_t{1}, size_t{33}, text().size()}) {
    const auto cache = MakeCacheFor(model(), PagesFor(end));
    Lease lease = cache->Acquire("", {});
    ASSERT_TRUE(cache->Reserve(lease, end).ok());
    const size_t last = end - 1;
    const SequenceRows rows{
        .pages = lease.pages(), .tokens = std::span(text()).first(end), .logit_rows = {&last, 1}};
    std::vector<float> logits(model().spec().vocab_size);
    model().Forward({&rows, 1}, logits.data());
    EXPECT_EQ(cold_->CountDifferent(last, 1, logits.data()), 0u) << end;
  }
}

TEST_P(Equality, AloneOrInABatchOfEight) {
  // Each sequence has a length and depth of its own: prefill, a page's border, decoding. Some begin
  // at the position behind the last one of the sequence before. Then all decode.
  constexpr size_t kDepths[] = {0, 40, 31, 33, 17, 70, 95, 64};
  constexpr size_t kRows[2][8] = {{40, 1, 2, 33, 1, 1, 20, 32}, {1, 1, 1, 1, 1, 1, 1, 1}};
  const auto cache = MakeCacheFor(model(), 8 * 4);
  std::vector<ColdRun> colds;
  std::vector<Lease> leases;
  for (size_t i = 0; i < 8; i++) {
    colds.emplace_back(model(), subject_->Turned(i, kDepths[i] + kRows[0][i] + kRows[1][i]));
    leases.push_back(kDepths[i] == 0 ? cache->Acquire("", {})
                                     : ExpectEqual(colds[i], *cache, kDepths[i], {}));
  }
  for (const auto& num_rows : kRows) ExpectBatchEqual(colds, *cache, leases, num_rows);
}

TEST_P(Equality, BranchesOfOneTrunkInABatch) {
  // They leave the trunk at a page's border, within a page, one by one; some prefill, some decode.
  const size_t trunk = text().size() - 16;
  const size_t shared[] = {trunk, trunk, trunk - 32, trunk - 33, trunk, trunk - 64, 0, trunk - 7};
  constexpr size_t kRows[2][8] = {{1, 8, 1, 20, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 1}};
  const auto cache = MakeCacheFor(model(), PagesFor(text().size()) + 16);
  RunSequence(model(), *cache, std::span(text()).first(trunk), {}, Ignore);
  std::vector<ColdRun> colds;
  std::vector<Lease> leases;
  for (size_t i = 0; i < 8; i++) {
    Tokens tokens = subject_->Turned(i + 1, kRows[0][i] + kRows[1][i]);
    tokens.insert(tokens.begin(), text().begin(), text().begin() + static_cast<long>(shared[i]));
    colds.emplace_back(model(), tokens);
    leases.push_back(cache->Acquire("", colds[i].tokens()));
    EXPECT_EQ(leases[i].num_matched(), shared[i]) << i;
  }
  // Pages that they share are the same ones, not copies.
  EXPECT_EQ(leases[0].pages()[0], leases[5].pages()[0]);
  EXPECT_EQ(leases[0].pages()[1], leases[3].pages()[1]);
  for (const auto& num_rows : kRows) ExpectBatchEqual(colds, *cache, leases, num_rows);
}

TEST_P(Equality, AfterEvictionAndRecompute) {
  const auto cache = MakeCacheFor(model(), PagesFor(text().size()) + 1);
  size_t computed = 0;
  ExpectEqual(*cold_, *cache, text().size(), {});
  // Two pages for somebody else: the end of the text goes.
  RunSequence(model(), *cache, subject_->Turned(1, 2 * kPageTokens), {}, Ignore);
  const size_t left = cache->MatchLength("", text());
  EXPECT_GT(left, 0u);
  EXPECT_LT(left, text().size());
  ExpectEqual(*cold_, *cache, text().size(), {}, &computed);
  EXPECT_EQ(computed, text().size() - left);
  // Now all of it.
  RunSequence(model(), *cache, subject_->Turned(2, text().size()), {}, Ignore);
  RunSequence(model(), *cache, subject_->Turned(3, 2 * kPageTokens), {}, Ignore);
  EXPECT_EQ(cache->MatchLength("", text()), 0u);
  ExpectEqual(*cold_, *cache, text().size(), {}, &computed);
  EXPECT_EQ(computed, text().size());
}

TEST_P(Equality, OneThreadOrThree) {
  for (const size_t num_threads : {1, 3}) {
    SCOPED_TRACE(num_threads);
    const auto other = LoadSubject(GetParam(), num_threads);
    ASSERT_TRUE(other.ok()) << other.status().message();
    const ColdRun run(*other->model, text());
    EXPECT_EQ(cold_->CountDifferent(0, text().size(), run.row(0)), 0u);
    // Decoding shares out work in another way than prefill does.
    const auto cache = MakeCacheFor(*other->model, PagesFor(text().size()));
    RunSequence(*other->model, *cache, std::span(text()).first(text().size() - 3), {}, Ignore);
    RunSequence(*other->model, *cache, text(), {.chunk = 1},
                [&](size_t first, size_t num_rows, const float* logits) {
                  EXPECT_EQ(cold_->CountDifferent(first, num_rows, logits), 0u) << first;
                });
  }
}

INSTANTIATE_TEST_SUITE_P(Logits, Equality, testing::ValuesIn(AllSubjects()),
                         [](const auto& info) { return SubjectName(info.param); });

}  // namespace
}  // namespace trellis
