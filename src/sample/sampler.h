// Sampler: logits of one row -> one token, by llama.cpp's definitions of each stage (greedy,
// temperature, top_k, top_p, min_p, typical, repetition / presence / frequency penalty,
// logit_bias), with logprobs.
//
// Deterministic: the random stream of a request depends on its seed and the index of the token
// alone (counter-based), so the same seed gives the same text whatever else is running, and a
// preempted request goes on as if nothing had happened. Immutable; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace trellis {

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t penalty_last_n = 64;                             // -1: the whole context
  std::vector<std::pair<TokenId, float>> logit_bias = {};  // -inf (<= -100) bans
  uint64_t seed = 0;
  int32_t num_logprobs = -1;  // -1: none; 0: of the sampled token only; n: and the n most likely
};

// ERRORS: kInvalidArgument naming the field that is out of range.
Status ValidateSampling(const SamplingParams& params, size_t vocab_size);

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;  // natural log, of the distribution before temperature and truncation (as
                      // OpenAI's and llama-server's)
};

struct SampledToken {
  TokenId token = 0;
  float logprob = 0;              // valid when num_logprobs >= 0
  std::vector<TokenLogprob> top;  // num_logprobs entries, most likely first
};

class Sampler {
 public:
  explicit Sampler(SamplingParams params) : params_(std::move(params)) {}

  // `logits` [vocab_size] is not changed. `history`: prompt and generated tokens so far, for the
  // penalties. `index`: how many tokens this request has generated.
  SampledToken Sample(std::span<const float> logits, std::span<const TokenId> history,
                      uint64_t index) const;
  // The same where what Sample chose may not be: chooses among those that `allowed` has left, the
  // logits with -inf for all others. The two together choose as if Sample had been given `allowed`,
  // but for cuts of the distribution (top_k, top_p, ...), which Sample makes before it is known
  // what is allowed, as llama.cpp does. Log probabilities stay those of `logits`.
  SampledToken SampleAgain(std::span<const float> logits, std::span<const float> allowed,
                           std::span<const TokenId> history, uint64_t index) const;

 private:
  SampledToken SampleFrom(std::span<const float> from, std::span<const float> logits,
                          std::span<const TokenId> history, double uniform) const;

  SamplingParams params_;
};

}  // namespace trellis
