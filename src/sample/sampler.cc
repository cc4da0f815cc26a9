#include "sample/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>

namespace trellis {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

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

// More likely first; of equals the lower id.
bool MoreLikely(const TokenLogprob& a, const TokenLogprob& b) {
  return a.logprob != b.logprob ? a.logprob > b.logprob : a.token < b.token;
}

using Candidates = std::vector<TokenLogprob>;  // `logprob` holds the logit, as the stages see it

// Keeps the k most likely, in order.
void KeepTop(Candidates* candidates, size_t k) {
  k = std::min(k, candidates->size());
  const auto middle = candidates->begin() + static_cast<std::ptrdiff_t>(k);
  std::partial_sort(candidates->begin(), middle, candidates->end(), MoreLikely);
  candidates->erase(middle, candidates->end());
}

double SumOfExp(const Candidates& candidates, float max) {
  double sum = 0;
  for (const TokenLogprob& c : candidates) sum += std::exp(c.logprob - max);
  return sum;
}

float MaxLogit(const Candidates& candidates) {
  float max = kBanned;
  for (const TokenLogprob& c : candidates) max = std::max(max, c.logprob);
  return max;
}

// The fewest most likely candidates whose probabilities reach p. Sorts only as far as it must.
void KeepTopP(Candidates* candidates, float p) {
  const float max = MaxLogit(*candidates);
  const double target = p * SumOfExp(*candidates, max);
  size_t sorted = 0;
  double sum = 0;
  for (size_t want = 64; sorted < candidates->size(); want *= 8) {
    const size_t end = std::min(want, candidates->size());
    std::partial_sort(candidates->begin() + static_cast<std::ptrdiff_t>(sorted),
                      candidates->begin() + static_cast<std::ptrdiff_t>(end), candidates->end(),
                      MoreLikely);
    for (size_t i = sorted; i < end; i++) {
      sum += std::exp((*candidates)[i].logprob - max);
      if (sum >= target) {
        candidates->resize(i + 1);
        return;
      }
    }
    sorted = end;
  }
}

// Locally typical sampling (Meister et al. 2022): the candidates whose surprise is nearest to the
// entropy, until p is reached.
void KeepTypical(Candidates* candidates, float p) {
  const float max = MaxLogit(*candidates);
  const double log_sum = std::log(SumOfExp(*candidates, max));
  double entropy = 0;
  for (const TokenLogprob& c : *candidates) {
    const double logprob = c.logprob - max - log_sum;
    if (std::isfinite(logprob)) entropy -= std::exp(logprob) * logprob;
  }
  const auto distance = [&](const TokenLogprob& c) {
    return std::fabs(-(c.logprob - max - log_sum) - entropy);
  };
  std::sort(candidates->begin(), candidates->end(),
            [&](const TokenLogprob& a, const TokenLogprob& b) {
              const double da = distance(a), db = distance(b);
              return da != db ? da < db : a.token < b.token;
            });
  double sum = 0;
  for (size_t i = 0; i < candidates->size(); i++) {
    sum += std::exp((*candidates)[i].logprob - max - log_sum);
    if (sum > p) {
      candidates->resize(i + 1);
      return;
    }
  }
}

void KeepMinP(Candidates* candidates, float min_p) {
  const float least = MaxLogit(*candidates) + std::log(min_p);
  std::erase_if(*candidates, [least](const TokenLogprob& c) { return c.logprob < least; });
}

void Penalize(const SamplingParams& params, std::span<const TokenId> history,
              Candidates* candidates) {
  const bool active = params.repetition_penalty != 1 || params.presence_penalty != 0 ||
                      params.frequency_penalty != 0;
  if (!active || params.penalty_last_n == 0) return;
  if (params.penalty_last_n > 0) {
    history = history.last(std::min(history.size(), static_cast<size_t>(params.penalty_last_n)));
  }
  std::unordered_map<TokenId, int> counts;
  for (TokenId token : history) counts[token]++;
  for (const auto& [token, count] : counts) {
    if (token < 0 || static_cast<size_t>(token) >= candidates->size()) continue;
    float& logit = (*candidates)[static_cast<size_t>(token)].logprob;
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

Sampler::Sampler(const SamplingParams& params, size_t vocab_size) : params_(params) {
  candidates_.reserve(vocab_size);
}

SampledToken Sampler::Sample(std::span<const float> logits, std::span<const TokenId> history,
                             uint64_t index) {
  candidates_.clear();
  for (size_t i = 0; i < logits.size(); i++) {
    candidates_.push_back({static_cast<TokenId>(i), std::isnan(logits[i]) ? kBanned : logits[i]});
  }
  SampledToken result;
  float max = kBanned;
  double log_sum = 0;
  if (params_.num_logprobs >= 0) {
    max = MaxLogit(candidates_);
    log_sum = std::log(SumOfExp(candidates_, max));
    const auto n = std::min(static_cast<size_t>(params_.num_logprobs), candidates_.size());
    result.top.resize(n);
    std::partial_sort_copy(candidates_.begin(), candidates_.end(), result.top.begin(),
                           result.top.end(), MoreLikely);
    for (TokenLogprob& t : result.top) t.logprob = static_cast<float>(t.logprob - max - log_sum);
  }
  for (const auto& [token, bias] : params_.logit_bias) {
    float& logit = candidates_[static_cast<size_t>(token)].logprob;
    logit = bias <= -100 ? kBanned : logit + bias;
  }
  Penalize(params_, history, &candidates_);

  if (params_.temperature <= 0) {
    result.token = std::min_element(candidates_.begin(), candidates_.end(), MoreLikely)->token;
  } else {
    if (params_.top_k > 0) KeepTop(&candidates_, static_cast<size_t>(params_.top_k));
    if (params_.typical_p < 1) KeepTypical(&candidates_, params_.typical_p);
    if (params_.top_p < 1) KeepTopP(&candidates_, params_.top_p);
    if (params_.min_p > 0) KeepMinP(&candidates_, params_.min_p);
    for (TokenLogprob& c : candidates_) c.logprob /= params_.temperature;
    const float top = MaxLogit(candidates_);
    double left = UniformDraw(params_.seed, index) * SumOfExp(candidates_, top);
    result.token = candidates_.front().token;
    for (const TokenLogprob& c : candidates_) {
      if (c.logprob == kBanned) continue;
      result.token = c.token;  // the last possible one if rounding leaves something
      left -= std::exp(c.logprob - top);
      if (left < 0) break;
    }
  }
  if (params_.num_logprobs >= 0) {
    const float logit = logits[static_cast<size_t>(result.token)];
    result.logprob = static_cast<float>(logit - max - log_sum);
  }
  return result;
}

}  // namespace trellis
