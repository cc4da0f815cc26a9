#include "sample/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "sample/candidates.h"

namespace trellis {
namespace {

// splitmix64 (Steele, Lea, Flood 2014) of seed and index: a stream that can be entered at any
// index.
double UniformDraw(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0x9e3779b97f4a7c15ULL + index * 0xd1342543de82ef95ULL + 0x632be59bd9b4e019ULL;
  for (int round = 0; round < 2; round++) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    x ^= x >> 31;
  }
  return static_cast<double>(x >> 11) * 0x1p-53;
}

// llama.cpp's: a token that was seen is pushed down, by `repetition_penalty` once however often.
void Penalize(const SamplingParams& params, std::span<const TokenId> history, size_t vocab_size,
              Candidates* candidates) {
  const bool active = params.repetition_penalty != 1 || params.presence_penalty != 0 ||
                      params.frequency_penalty != 0;
  if (!active || params.penalty_last_n == 0) return;
  if (params.penalty_last_n > 0) {
    history = history.last(std::min(history.size(), static_cast<size_t>(params.penalty_last_n)));
  }
  // Between two calls all of them are 0.
  static thread_local std::vector<uint32_t> counts;
  if (counts.size() < vocab_size) counts.resize(vocab_size);
  const auto known = [vocab_size](TokenId token) {
    return token >= 0 && static_cast<size_t>(token) < vocab_size;
  };
  for (TokenId token : history) {
    if (known(token)) counts[static_cast<size_t>(token)]++;
  }
  for (TokenId token : history) {
    if (!known(token)) continue;
    const uint32_t count = std::exchange(counts[static_cast<size_t>(token)], 0);
    if (count == 0) continue;
    float& logit = candidates->logit(token);
    logit = logit <= 0 ? logit * params.repetition_penalty : logit / params.repetition_penalty;
    logit -= static_cast<float>(count) * params.frequency_penalty + params.presence_penalty;
  }
}

Status OutOfRange(const char* field, const char* range) {
  return Status(StatusCode::kInvalidArgument, fmt::format("{} must be {}", field, range));
}

}  // namespace

Status ValidateSampling(const SamplingParams& p, size_t vocab_size) {
  const auto in = [](float v, float low, float high) {
    return v >= low && v <= high;
  };  // false for NaN
  if (!in(p.temperature, 0, 100)) return OutOfRange("temperature", "between 0 and 100");
  if (p.top_k < 0) return OutOfRange("top_k", "0 (off) or more");
  if (!in(p.top_p, 0, 1)) return OutOfRange("top_p", "between 0 and 1");
  if (!in(p.min_p, 0, 1)) return OutOfRange("min_p", "between 0 and 1");
  if (!in(p.typical_p, 0, 1)) return OutOfRange("typical_p", "between 0 and 1");
  if (!in(p.repetition_penalty, 0.01f, 100))
    return OutOfRange("repetition_penalty", "between 0.01 and 100");
  if (!in(p.presence_penalty, -100, 100))
    return OutOfRange("presence_penalty", "between -100 and 100");
  if (!in(p.frequency_penalty, -100, 100))
    return OutOfRange("frequency_penalty", "between -100 and 100");
  if (p.penalty_last_n < -1)
    return OutOfRange("penalty_last_n", "-1 (the whole context), 0 (off) or more");
  if (p.num_logprobs < -1 || p.num_logprobs > 1000) return OutOfRange("logprobs", "at most 1000");
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0 || static_cast<size_t>(token) >= vocab_size) {
      return Status(
          StatusCode::kInvalidArgument,
          fmt::format("logit_bias: token {} is not one of the model's {}", token, vocab_size));
    }
    if (std::isnan(bias)) return OutOfRange("logit_bias", "numbers");
  }
  return Status::Ok();
}

SampledToken Sampler::Sample(std::span<const float> logits, std::span<const TokenId> history,
                             uint64_t index) const {
  return SampleFrom(logits, logits, history, UniformDraw(params_.seed, index));
}

SampledToken Sampler::SampleAgain(std::span<const float> logits, std::span<const float> allowed,
                                  std::span<const TokenId> history, uint64_t index) const {
  // Another stream: the first draw is known to have met what is not allowed.
  return SampleFrom(allowed, logits, history, UniformDraw(~params_.seed, index));
}

SampledToken Sampler::SampleFrom(std::span<const float> from, std::span<const float> logits,
                                 std::span<const TokenId> history, double uniform) const {
  // One for each thread that samples, not for each request: it is larger than the logits.
  static thread_local Candidates candidates;
  candidates.Load(logits);
  SampledToken result;
  double log_sum = 0;
  const auto logprob = [&](TokenId token) {
    const float logit = logits[static_cast<size_t>(token)];
    return logit > kBanned ? static_cast<float>(std::min(0.0, logit - log_sum)) : kBanned;
  };
  if (params_.num_logprobs >= 0) {
    log_sum = candidates.LogSumExp();
    for (TokenId token : candidates.Top(static_cast<size_t>(params_.num_logprobs))) {
      result.top.push_back({token, logprob(token)});
    }
  }
  if (from.data() != logits.data()) candidates.Load(from);
  for (const auto& [token, bias] : params_.logit_bias) {
    float& logit = candidates.logit(token);
    logit = bias <= -100 ? kBanned : logit + bias;
  }
  Penalize(params_, history, logits.size(), &candidates);

  if (params_.temperature <= 0) {
    result.token = candidates.Best();
  } else {
    if (params_.top_k > 0) candidates.KeepTopK(static_cast<size_t>(params_.top_k));
    if (params_.typical_p < 1) candidates.KeepTypical(params_.typical_p);
    if (params_.top_p < 1) candidates.KeepTopP(params_.top_p);
    if (params_.min_p > 0) candidates.KeepMinP(params_.min_p);
    result.token = candidates.Draw(uniform, params_.temperature);
  }
  if (params_.num_logprobs >= 0) result.logprob = logprob(result.token);
  return result;
}

}  // namespace trellis
