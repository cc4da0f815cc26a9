// Our sampling stages keep what libllama's keep: its own samplers, on the same logits.
#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "sample/candidates.h"
#include "sample/sampler.h"

namespace trellis {
namespace {

constexpr size_t kVocab = 20000;
constexpr int kRounds = 40;

struct FreeSampler {
  void operator()(llama_sampler* sampler) const { llama_sampler_free(sampler); }
};
using SamplerPtr = std::unique_ptr<llama_sampler, FreeSampler>;

// Peaked and flat.
std::vector<float> RandomLogits(std::mt19937& random) {
  std::normal_distribution<float> normal(0.0f, random() % 2 == 0 ? 1.0f : 5.0f);
  std::vector<float> logits(kVocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

std::vector<TokenId> TheirTokens(const std::vector<float>& logits, llama_sampler* sampler) {
  std::vector<llama_token_data> data(logits.size());
  for (size_t i = 0; i < logits.size(); i++) data[i] = {static_cast<TokenId>(i), logits[i], 0};
  llama_token_data_array array = {data.data(), data.size(), -1, false};
  llama_sampler_apply(sampler, &array);
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < array.size; i++) tokens.push_back(array.data[i].id);
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

// libllama sums in float and leaves the order of equal logits open: what is last of a sum over
// thousands may differ.
void ExpectAlmostSame(const std::vector<TokenId>& ours, const std::vector<TokenId>& theirs) {
  std::vector<TokenId> different;
  std::set_symmetric_difference(ours.begin(), ours.end(), theirs.begin(), theirs.end(),
                                std::back_inserter(different));
  EXPECT_LE(different.size(), 1 + theirs.size() / 500) << ours.size() << " and " << theirs.size();
}

template <typename Keep>
void Compare(SamplerPtr sampler, const Keep& keep) {
  std::mt19937 random(1);
  for (int round = 0; round < kRounds; round++) {
    const std::vector<float> logits = RandomLogits(random);
    Candidates candidates;
    candidates.Load(logits);
    keep(candidates);
    ExpectAlmostSame(candidates.Tokens(), TheirTokens(logits, sampler.get()));
  }
}

TEST(SamplersTest, TopK) {
  for (int k : {1, 40, 3000}) {
    Compare(SamplerPtr(llama_sampler_init_top_k(k)),
            [k](Candidates& c) { c.KeepTopK(static_cast<size_t>(k)); });
  }
}

TEST(SamplersTest, TopP) {
  for (float p : {0.0f, 0.1f, 0.9f, 0.95f}) {
    Compare(SamplerPtr(llama_sampler_init_top_p(p, 0)), [p](Candidates& c) { c.KeepTopP(p); });
  }
}

TEST(SamplersTest, MinP) {
  for (float p : {0.01f, 0.5f, 1.0f}) {
    Compare(SamplerPtr(llama_sampler_init_min_p(p, 0)), [p](Candidates& c) { c.KeepMinP(p); });
  }
}

TEST(SamplersTest, Typical) {
  for (float p : {0.1f, 0.5f, 0.95f}) {
    Compare(SamplerPtr(llama_sampler_init_typical(p, 0)), [p](Candidates& c) { c.KeepTypical(p); });
  }
}

// llama-server's default order.
TEST(SamplersTest, TheChain) {
  SamplerPtr chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
  llama_sampler_chain_add(chain.get(), llama_sampler_init_top_k(500));
  llama_sampler_chain_add(chain.get(), llama_sampler_init_typical(0.9f, 0));
  llama_sampler_chain_add(chain.get(), llama_sampler_init_top_p(0.9f, 0));
  llama_sampler_chain_add(chain.get(), llama_sampler_init_min_p(0.05f, 0));
  Compare(std::move(chain), [](Candidates& c) {
    c.KeepTopK(500);
    c.KeepTypical(0.9f);
    c.KeepTopP(0.9f);
    c.KeepMinP(0.05f);
  });
}

// Bias and penalties decide what greedy takes, for any history.
TEST(SamplersTest, BiasAndPenalties) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> unit(0, 1);
  int changed = 0;
  for (int round = 0; round < 200; round++) {
    const std::vector<float> logits = RandomLogits(random);
    const auto best =
        static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    std::vector<TokenId> history(100);
    for (TokenId& token : history) token = static_cast<TokenId>(random() % kVocab);
    for (size_t i = 0; i < 40; i += 1 + random() % 20) history[60 + i] = best;
    const SamplingParams params{.temperature = 0,
                                .repetition_penalty = 1 + unit(random) / 4,
                                .presence_penalty = unit(random) - 0.3f,
                                .frequency_penalty = unit(random) / 4,
                                .penalty_last_n = 64,
                                .logit_bias = {{best, unit(random) - 0.5f}, {17, 3.0f}}};
    SamplerPtr chain(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    std::vector<llama_logit_bias> biases;
    for (const auto& [token, bias] : params.logit_bias) biases.push_back({token, bias});
    llama_sampler_chain_add(
        chain.get(),
        llama_sampler_init_logit_bias(kVocab, static_cast<int32_t>(biases.size()), biases.data()));
    llama_sampler_chain_add(
        chain.get(),
        llama_sampler_init_penalties(kVocab, params.penalty_last_n, params.repetition_penalty,
                                     params.frequency_penalty, params.presence_penalty));
    llama_sampler_chain_add(chain.get(), llama_sampler_init_greedy());
    for (TokenId token : history) llama_sampler_accept(chain.get(), token);

    std::vector<llama_token_data> data(kVocab);
    for (size_t i = 0; i < kVocab; i++) data[i] = {static_cast<TokenId>(i), logits[i], 0};
    llama_token_data_array array = {data.data(), data.size(), -1, false};
    llama_sampler_apply(chain.get(), &array);
    const TokenId theirs = array.data[array.selected].id;
    EXPECT_EQ(Sampler(params).Sample(logits, history, 0).token, theirs);
    changed += theirs != best ? 1 : 0;
  }
  EXPECT_GT(changed, 20);
}

}  // namespace
}  // namespace trellis
