// Embeddings against libllama's, on models that people use.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "kernels/kernels.h"
#include "model/model.h"
#include "os/compute_pool.h"
#include "os/machine.h"
#include "reference.h"
#include "support/model_files.h"
#include "support/sequence_run.h"
#include "text/tokenizer.h"

namespace trellis {
namespace {

constexpr char kText[] =
    "The quick brown fox jumps over the lazy dog, and then it goes on, through the forest and over "
    "the hills, until it finds a place where nobody asks it to jump over anything at all.";

double Cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0, squares_a = 0, squares_b = 0;
  for (size_t i = 0; i < a.size(); i++) {
    product += static_cast<double>(a[i]) * b[i];
    squares_a += static_cast<double>(a[i]) * a[i];
    squares_b += static_cast<double>(b[i]) * b[i];
  }
  return product / std::sqrt(squares_a * squares_b);
}

// In chunks of seven tokens.
std::vector<float> TrellisEmbedding(Model& model, const std::vector<TokenId>& tokens,
                                    Pooling pooling) {
  const auto cache = MakeCacheFor(model, PagesFor(tokens.size()));
  std::vector<float> sum(model.spec().embedding_length);
  Lease lease = cache->Acquire("", tokens);
  for (size_t first = 0; first < tokens.size(); first += 7) {
    const size_t n = std::min<size_t>(7, tokens.size() - first);
    TRELLIS_CHECK(cache->Reserve(lease, first + n).ok());
    const ChunkRows chunk(lease, tokens, first, n);
    SequenceRows rows = chunk.rows();
    rows.hidden_sum = sum;
    const bool is_last = first + n == tokens.size();
    if (pooling == Pooling::kLast) rows.logit_rows = rows.logit_rows.last(is_last ? 1 : 0);
    model.Forward({&rows, 1}, nullptr);
    cache->Commit(lease, rows.tokens);
  }
  return sum;
}

class Embeddings : public testing::TestWithParam<const char*> {};

TEST_P(Embeddings, AreLibllamas) {
  const std::string path = RealModelPath(GetParam());
  const auto tokenizer = Tokenizer::Load(path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const std::vector<TokenId> tokens =
      (*tokenizer)->Encode(kText, AddSpecial::kByVocabulary, SpecialTokens::kAsText);
  auto pool = ComputePool::Create(AvailablePhysicalCores());
  ASSERT_TRUE(pool.ok());
  const auto kernels = SelectKernels("");
  ASSERT_TRUE(kernels.ok());
  auto model = Model::Load(path, **kernels, **pool, {});
  ASSERT_TRUE(model.ok()) << model.status().message();
  Reference reference(path, tokens, std::string(ORACLE_WORK_DIR "/embeddings_") + GetParam());
  for (const Pooling pooling : {Pooling::kLast, Pooling::kMean}) {
    const char* name = pooling == Pooling::kMean ? "mean" : "last";
    const auto file = reference.Embedding(name);
    ASSERT_TRUE(file.ok()) << file.status().message();
    ASSERT_EQ(file->size(), (*model)->spec().embedding_length);
    const double cosine = Cosine(TrellisEmbedding(**model, tokens, pooling), *file);
    fmt::print("  {} {}: 1 - cosine = {:.1e}\n", GetParam(), name, 1 - cosine);
    // Both round weights' partners to 8 bits, each in its own way.
    EXPECT_GT(cosine, 0.998);
  }
}

INSTANTIATE_TEST_SUITE_P(Oracle, Embeddings,
                         testing::Values("SmolLM2-135M-Instruct.Q4_1.gguf",
                                         "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                                         "gemma-3-270m-q4_k_m.gguf"),
                         [](const auto& info) { return "Model" + std::to_string(info.index); });

}  // namespace
}  // namespace trellis
