#include "model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace trellis {
namespace {

// Pairs whose waves turn more often than kBetaFast over the original context are left alone, those
// that turn less often than kBetaSlow are interpolated (YaRN's alpha and beta for Llama).
constexpr double kBetaFast = 32, kBetaSlow = 1;

// The pair whose wave turns `turns` times over the original context (YaRN, section 3.2).
double YarnPair(const RopeConfig& config, size_t rope_dim, double turns) {
  const double n = static_cast<double>(rope_dim);
  return n *
         std::log(static_cast<double>(config.original_context) / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(double{config.base}));
}

// How much of pair i is extrapolated (1: not interpolated at all).
double YarnExtrapolation(const RopeConfig& config, size_t rope_dim, size_t i) {
  const double low = std::max(0.0, std::floor(YarnPair(config, rope_dim, kBetaFast)));
  const double high =
      std::min(static_cast<double>(rope_dim) - 1, std::ceil(YarnPair(config, rope_dim, kBetaSlow)));
  const double ramp = (static_cast<double>(i) - low) / std::max(0.001, high - low);
  return 1 - std::clamp(ramp, 0.0, 1.0);
}

}  // namespace

RopeTable::RopeTable(const RopeConfig& config, size_t rope_dim)
    : magnitude_(double{config.magnitude}) {
  for (size_t i = 0; i < rope_dim / 2; i++) {
    double frequency = std::pow(double{config.base},
                                -2.0 * static_cast<double>(i) / static_cast<double>(rope_dim));
    if (!config.frequency_divisors.empty()) frequency /= double{config.frequency_divisors[i]};
    const double interpolated = frequency / double{config.linear_factor};
    const double mix = config.yarn ? YarnExtrapolation(config, rope_dim, i) : 0.0;
    frequencies_.push_back(interpolated * (1 - mix) + frequency * mix);
  }
}

void RopeTable::Extend(size_t num_positions) {
  const size_t half = frequencies_.size();
  if (half == 0) return;
  for (size_t position = cos_.size() / half; position < num_positions; position++) {
    for (double frequency : frequencies_) {
      const double angle = static_cast<double>(position) * frequency;
      cos_.push_back(static_cast<float>(std::cos(angle) * magnitude_));
      sin_.push_back(static_cast<float>(std::sin(angle) * magnitude_));
    }
  }
}

}  // namespace trellis
