// What /metrics says: counts and sizes of the engine and the cache, and how requests fared.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace trellis {

// How often a value was at most each bound. Any thread.
class Histogram {
 public:
  static constexpr size_t kMaxBounds = 16;
  // REQUIRES: ascending, at most kMaxBounds.
  explicit Histogram(std::span<const double> bounds);
  void Observe(double value);
  // Appends the samples. `labels`: of all of them, like a="b"; may be empty.
  void Print(const std::string& name, const std::string& labels, std::string* out) const;

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

// Of one model.
struct ModelMetrics {
  std::string model;  // the value of the label of this name; empty: there is no such label
  EngineStats engine;
  PageCacheStats cache;
  const RequestMetrics& requests;
};

// https://prometheus.io/docs/instrumenting/exposition_formats/, version 0.0.4. What vLLM exposes
// too has its name, with trellis_ for vllm:, and its meaning.
std::string MetricsText(const std::vector<ModelMetrics>& models, uint64_t http_requests);

}  // namespace trellis
