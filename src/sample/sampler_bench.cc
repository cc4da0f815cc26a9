// What one token costs to sample, over vocabularies of the sizes that models have.
#include <benchmark/benchmark.h>

#include <random>

#include "sample/sampler.h"

namespace trellis {
namespace {

constexpr size_t kVocab = 151936;  // Qwen 2.5
constexpr size_t kRows = 8;

enum Shape {
  kPeaked,  // as a language model's: a few tokens far above a broad bulk
  kFlat,    // nothing stands out: tens of thousands of tokens within 95 %
};

std::vector<std::vector<float>> MakeLogits(Shape shape) {
  std::mt19937 random(1);
  std::normal_distribution<float> bulk(0.0f, shape == kPeaked ? 2.5f : 1.0f);
  std::vector<std::vector<float>> rows(kRows, std::vector<float>(kVocab));
  for (std::vector<float>& row : rows) {
    for (float& logit : row) logit = bulk(random);
    for (int i = 0; shape == kPeaked && i < 50; i++) {
      row[random() % kVocab] = 18.0f - 0.2f * static_cast<float>(i);
    }
  }
  return rows;
}

void Run(benchmark::State& state, const SamplingParams& params) {
  const auto rows = MakeLogits(static_cast<Shape>(state.range(0)));
  state.SetLabel(state.range(0) == kPeaked ? "peaked" : "flat");
  const std::vector<TokenId> history(64, 7);
  const Sampler sampler(params);
  uint64_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(sampler.Sample(rows[i % kRows], history, i));
    i++;
  }
}

#define TRELLIS_SAMPLER_BENCH(name, ...)    \
  void BM_##name(benchmark::State& state) { \
    Run(state, SamplingParams __VA_ARGS__); \
  }                                         \
  BENCHMARK(BM_##name)->Arg(kPeaked)->Arg(kFlat)->Unit(benchmark::kMicrosecond)

TRELLIS_SAMPLER_BENCH(Greedy, {.temperature = 0});
TRELLIS_SAMPLER_BENCH(Defaults, {});
TRELLIS_SAMPLER_BENCH(TopP, {.top_p = 0.95f});
TRELLIS_SAMPLER_BENCH(TopK, {.top_k = 40});
TRELLIS_SAMPLER_BENCH(MinP, {.min_p = 0.05f});
TRELLIS_SAMPLER_BENCH(Typical, {.typical_p = 0.9f});
TRELLIS_SAMPLER_BENCH(LlamaCppDefaults,
                      {.temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f});
TRELLIS_SAMPLER_BENCH(Penalties, {.repetition_penalty = 1.1f});
TRELLIS_SAMPLER_BENCH(Logprobs, {.num_logprobs = 20});

}  // namespace
}  // namespace trellis
