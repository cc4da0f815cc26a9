// What /metrics says: counts and sizes of the engine and the cache, and how requests fared.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "engine/engine.h"

namespace trellis {

// How often a value was at most each bound. Any thread.
class Histogram {
 public:
  static constexpr size_t kMaxBounds = 16;
  // REQUIRES: ascending, at most kMaxBounds.
  explicit Histogram(std::span<const double> bounds);
  void Observe(double value);
  // Appends # HELP, # TYPE and the samples.
  void Print(const std::string& name, const std::string& help, std::string* out) const;

 private:
  std::span<const double> bounds_;
  std::array<std::atomic<uint64_t>, kMaxBounds + 1> counts_{};  // the last one: above all bounds
  std::atomic<double> sum_{0};
};

// Of requests, as the engine's thread sees them. Any thread.
struct RequestMetrics {
  RequestMetrics();
  Histogram time_to_first_token, inter_token_latency;  // seconds
  Histogram queue_time, e2e_latency;                   // seconds, of answers that were finished
  Histogram prompt_tokens, computed_tokens;            // per answer; cached = prompt - computed
};

// https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. What vLLM exposes
// too has its name, with trellis_ for vllm:, and its meaning.
std::string MetricsText(const EngineStats& engine, const PageCacheStats& cache,
                        const RequestMetrics& requests, uint64_t http_requests);

}  // namespace trellis
