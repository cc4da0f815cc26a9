#include "oracle_check.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <vector>

#include "comparison.h"
#include "model/gguf_file.h"
#include "model/model.h"
#include "os/compute_pool.h"
#include "os/machine.h"
#include "reference.h"
#include "support/model_files.h"
#include "support/sequence_run.h"

namespace trellis {
namespace {

constexpr size_t kChunk = 64;  // rows whose logits are held at once

// Rows [first, first + num_rows) of `other`, added to `sum`.
void AddRows(const LogitsFile& truth, size_t first, size_t num_rows, const float* other,
             ComputePool& pool, Divergence* sum) {
  const size_t vocab = truth.vocab_size();
  std::vector<RowDistance> distances(num_rows);
  pool.ParallelFor(num_rows, [&](size_t r, size_t) {
    distances[r] = Distance(truth.row(first + r), other + r * vocab, vocab);
  });
  for (const RowDistance& distance : distances) sum->Add(distance);
}

Divergence Between(const LogitsFile& truth, const LogitsFile& other, size_t num_rows,
                   ComputePool& pool) {
  EXPECT_EQ(truth.vocab_size(), other.vocab_size());
  Divergence sum;
  AddRows(truth, 0, num_rows, other.row(0), pool, &sum);
  return sum;
}

void PrintLine(const std::string& what, const Divergence& d) {
  fmt::print("  {:44} {:.3e}  {:.3e}  {:6.2f} %  {:.2e}\n", what, d.mean_kl(), d.max_kl,
             100 * d.agreement(), d.max_difference);
  std::fflush(stdout);
}

Divergence Noisier(const Divergence& a, const Divergence& b) {
  Divergence worst = a.total_kl > b.total_kl ? a : b;
  worst.max_kl = std::max(a.max_kl, b.max_kl);
  worst.disagreements = std::max(a.disagreements, b.disagreements);
  return worst;
}

Result<Divergence> TrellisDivergence(const Subject& subject, const KernelTable& kernels,
                                     const LogitsFile& truth, ComputePool& pool) {
  LoadOptions options;
  if (subject.kv == Subject::Kv::kQ8_0) options.kv_type = KvType::kQ8_0;
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                           Model::Load(subject.path, kernels, pool, options));
  if (model->spec().vocab_size != truth.vocab_size()) {
    return Status(StatusCode::kInternal, fmt::format("{} logits a row, libllama has {}",
                                                     model->spec().vocab_size, truth.vocab_size()));
  }
  const auto cache = MakeCacheFor(*model, PagesFor(subject.tokens.size()));
  Divergence sum;
  RunSequence(*model, *cache, subject.tokens, {.chunk = kChunk},
              [&](size_t first, size_t num_rows, const float* logits) {
                AddRows(truth, first, num_rows, logits, pool, &sum);
              });
  return sum;
}

void ExpectWithinTolerance(const Divergence& trellis, const Divergence& llama,
                           const Subject& subject) {
  const bool only_floor =
      subject.weights == Subject::Weights::kFloat && subject.kv == Subject::Kv::kDefault;
  const double factor = subject.kv == Subject::Kv::kQ8_0 ? 1.5 : 1.25;
  const double mean_limit = only_floor ? kKlFloor : factor * llama.mean_kl() + kKlFloor;
  EXPECT_LE(trellis.mean_kl(), mean_limit);
  EXPECT_LE(trellis.max_kl, 5 * llama.max_kl + 100 * kKlFloor);
  EXPECT_LE(trellis.disagreements, MaxDisagreements(llama));
}

Result<LogitsFile> Truth(const Subject& subject, Reference* reference) {
  if (subject.cached_truth.empty()) return reference->Truth();
  TRELLIS_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> gguf, GgufFile::Open(subject.path));
  return reference->CachedTruth(TestCacheFolder() / "oracle", subject.cached_truth,
                                gguf->Fingerprint());
}

// The two settings of libllama. On one thread each, as they run side by side, which takes less time
// than one after the other on two.
std::vector<std::string> PlainOptions(const Subject& subject) {
  std::vector<std::string> options = {"--threads", "1"};
  if (subject.kv == Subject::Kv::kQ8_0)  // which it has with flash attention only
    options.insert(options.end(), {"--kv", "q8_0", "--flash-attention", "on"});
  return options;
}
std::vector<std::string> OtherOptions(const Subject& subject) {
  std::vector<std::string> options = {"--threads", "1",   "--flash-attention", "on",
                                      "--repack",  "off", "--batch",           "512",
                                      "--ubatch",  "96"};
  if (subject.kv == Subject::Kv::kQ8_0) options.insert(options.end(), {"--kv", "q8_0"});
  return options;
}

}  // namespace

void CheckAgainstLlama(const Subject& subject) {
  auto pool = ComputePool::Create(AvailablePhysicalCores());
  ASSERT_TRUE(pool.ok()) << pool.status().message();
  const size_t num_rows = subject.tokens.size();
  Reference reference(subject.path, subject.tokens,
                      std::string(ORACLE_WORK_DIR "/") + subject.name);

  const auto truth = Truth(subject, &reference);
  ASSERT_TRUE(truth.ok()) << truth.status().message();
  auto running = std::async(std::launch::async,
                            [&] { return reference.Logits("other", OtherOptions(subject)); });
  const auto plain = reference.Logits("plain", PlainOptions(subject));
  const auto other = running.get();
  ASSERT_TRUE(plain.ok()) << plain.status().message();
  ASSERT_TRUE(other.ok()) << other.status().message();

  fmt::print("{}, {} tokens\n  {:44} {:9}  {:9}  {:8}  {}\n", subject.name, num_rows,
             "distance from the truth (dequantised, f32)", "mean KL", "max KL", "top 1",
             "max |logit|");
  const Divergence plain_llama = Between(*truth, *plain, num_rows, **pool);
  const Divergence other_llama = Between(*truth, *other, num_rows, **pool);
  PrintLine("libllama", plain_llama);
  PrintLine("libllama, flash attention, no repacking", other_llama);
  PrintLine("(libllama's two from each other)", Between(*plain, *other, num_rows, **pool));
  for (const KernelTable* kernels : subject.kernels) {
    SCOPED_TRACE(kernels->name);
    const auto trellis = TrellisDivergence(subject, *kernels, *truth, **pool);
    ASSERT_TRUE(trellis.ok()) << trellis.status().message();
    PrintLine(std::string("trellis, ") + kernels->name, *trellis);
    EXPECT_EQ(trellis->num_rows, num_rows);
    ExpectWithinTolerance(*trellis, Noisier(plain_llama, other_llama), subject);
  }
}

}  // namespace trellis
