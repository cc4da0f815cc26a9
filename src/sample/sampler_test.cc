#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

namespace trellis {
namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, 3.0f, -1.0f};

TokenId Draw(const SamplingParams& params, uint64_t index, std::span<const TokenId> history = {}) {
  return Sampler(params).Sample(kLogits, history, index).token;
}

std::map<TokenId, double> Frequencies(const SamplingParams& params) {
  std::map<TokenId, double> share;
  for (uint64_t i = 0; i < 20000; i++) share[Draw(params, i)] += 1.0 / 20000;
  return share;
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfTheMostLikely) {
  SamplingParams params{.temperature = 0};
  EXPECT_EQ(Draw(params, 0), 1);
  params.logit_bias = {{1, -100.0f}};
  EXPECT_EQ(Draw(params, 0), 3);
}

TEST(SamplerTest, DrawsFollowTheSoftmax) {
  double sum = 0;
  for (float l : kLogits) sum += std::exp(l);
  const auto share = Frequencies({.seed = 7});
  for (size_t i = 0; i < kLogits.size(); i++) {
    EXPECT_NEAR(share.at(static_cast<TokenId>(i)), std::exp(kLogits[i]) / sum, 0.015);
  }
}

TEST(SamplerTest, TheStreamDependsOnSeedAndIndexAlone) {
  const SamplingParams params{.seed = 42};
  std::vector<TokenId> forward, backward;
  for (uint64_t i = 0; i < 64; i++) forward.push_back(Draw(params, i));
  for (uint64_t i = 64; i-- > 0;) backward.insert(backward.begin(), Draw(params, i));
  EXPECT_EQ(forward, backward);
  std::vector<TokenId> other;
  for (uint64_t i = 0; i < 64; i++) other.push_back(Draw({.seed = 43}, i));
  EXPECT_NE(forward, other);
}

TEST(SamplerTest, StagesKeepWhatTheySay) {
  for (const auto& [token, share] : Frequencies({.top_k = 2}))
    EXPECT_TRUE(token == 1 || token == 3);
  for (const auto& [token, share] : Frequencies({.top_p = 0.5f}))
    EXPECT_TRUE(token == 1 || token == 3);
  EXPECT_EQ(Frequencies({.min_p = 0.3f}).count(0), 0u);
  EXPECT_EQ(Frequencies({.min_p = 0.3f}).count(2), 1u);
  EXPECT_LT(Frequencies({.typical_p = 0.3f}).size(), 3u);
}

TEST(SamplerTest, PenaltiesSeeTheLastTokensOnly) {
  const std::vector<TokenId> history = {1, 0, 0};
  SamplingParams params{.temperature = 0, .repetition_penalty = 2.0f};
  EXPECT_EQ(Draw(params, 0, history), 3);
  params.penalty_last_n = 2;
  EXPECT_EQ(Draw(params, 0, history), 1);
}

TEST(SamplerTest, LogprobsAreOfTheWholeDistribution) {
  double sum = 0;
  for (float l : kLogits) sum += std::exp(l);
  const SampledToken sampled =
      Sampler({.temperature = 0, .num_logprobs = 3}).Sample(kLogits, {}, 0);
  EXPECT_NEAR(sampled.logprob, 3 - std::log(sum), 1e-6);
  ASSERT_EQ(sampled.top.size(), 3u);
  EXPECT_EQ(sampled.top[0].token, 1);
  EXPECT_EQ(sampled.top[1].token, 3);
  EXPECT_EQ(sampled.top[2].token, 2);
}

TEST(SamplerTest, WhatIsNotAllowedIsDrawnAgainFromWhatIs) {
  constexpr float kNo = -std::numeric_limits<float>::infinity();
  const std::vector<float> allowed = {kLogits[0], kNo, kLogits[2], kNo, kLogits[4]};
  EXPECT_EQ(Sampler({.temperature = 0}).SampleAgain(kLogits, allowed, {}, 0).token, 2);
  const Sampler sampler({.seed = 3, .num_logprobs = 1});
  std::map<TokenId, double> share;
  constexpr int kDraws = 40000;
  for (uint64_t i = 0; i < kDraws; i++) {
    SampledToken sampled = sampler.Sample(kLogits, {}, i);
    if (std::isinf(allowed[static_cast<size_t>(sampled.token)])) {
      const SampledToken first =
          std::exchange(sampled, sampler.SampleAgain(kLogits, allowed, {}, i));
      EXPECT_EQ(sampled.top[0].token, first.top[0].token) << "of the model's own distribution";
    }
    share[sampled.token] += 1.0 / kDraws;
  }
  double sum = 0;
  for (const float logit : allowed) sum += std::exp(logit);
  for (size_t token = 0; token < allowed.size(); token++)
    EXPECT_NEAR(share[static_cast<TokenId>(token)], std::exp(allowed[token]) / sum, 0.01) << token;
}

TEST(SamplerTest, NumbersThatAreNoneAreNeverChosen) {
  const std::vector<float> logits(4, std::nanf(""));
  for (float temperature : {0.0f, 1.0f}) {
    const SampledToken sampled =
        Sampler({.temperature = temperature, .num_logprobs = 2}).Sample(logits, {}, 0);
    EXPECT_GE(sampled.token, 0);
    EXPECT_LT(sampled.token, 4);
    EXPECT_EQ(sampled.logprob, -std::numeric_limits<float>::infinity());
  }
}

TEST(SamplerTest, RangesAreCheckedByName) {
  EXPECT_TRUE(ValidateSampling({}, 5).ok());
  EXPECT_NE(ValidateSampling({.temperature = -1}, 5).message().find("temperature"),
            std::string::npos);
  EXPECT_NE(ValidateSampling({.top_p = std::nanf("")}, 5).message().find("top_p"),
            std::string::npos);
  EXPECT_NE(ValidateSampling({.logit_bias = {{5, 1.0f}}}, 5).message().find("logit_bias"),
            std::string::npos);
}

}  // namespace
}  // namespace trellis
