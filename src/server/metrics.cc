#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace trellis {
namespace {

constexpr double kSeconds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                               1,     2.5,  5,     10,   25,  50,   100};
constexpr double kTokens[] = {1,    4,    16,    64,    256,   1024,  2048,
                              4096, 8192, 16384, 32768, 65536, 131072};

}  // namespace

Histogram::Histogram(std::span<const double> bounds) : bounds_(bounds) {
  TRELLIS_CHECK(bounds.size() <= kMaxBounds && std::is_sorted(bounds.begin(), bounds.end()));
}

void Histogram::Observe(double value) {
  const auto bound = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  counts_[static_cast<size_t>(bound - bounds_.begin())]++;
  sum_.fetch_add(value);
}

void Histogram::Print(const std::string& name, const std::string& help, std::string* out) const {
  *out += fmt::format("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  uint64_t count = 0;
  for (size_t i = 0; i <= bounds_.size(); i++) {
    count += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    *out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bound, count);
  }
  *out += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name, sum_.load(), count);
}

RequestMetrics::RequestMetrics()
    : time_to_first_token(kSeconds),
      inter_token_latency(kSeconds),
      prompt_tokens(kTokens),
      computed_tokens(kTokens) {}

std::string MetricsText(const EngineStats& engine, const PageCacheStats& cache,
                        const RequestMetrics& requests, uint64_t http_requests) {
  std::string out;
  const auto metric = [&out](const char* type, const char* name, uint64_t value, const char* help) {
    out += fmt::format("# HELP trellis_{0} {1}\n# TYPE trellis_{0} {2}\ntrellis_{0} {3}\n", name,
                       help, type, value);
  };
  const auto counter = [&](const char* name, uint64_t value, const char* help) {
    metric("counter", name, value, help);
  };
  const auto gauge = [&](const char* name, uint64_t value, const char* help) {
    metric("gauge", name, value, help);
  };
  counter("http_requests_total", http_requests, "HTTP requests read.");
  counter("requests_total", engine.requests_total, "Answers that were asked for and accepted.");
  counter("requests_finished_total", engine.finished_total, "Answers that were finished.");
  counter("requests_cancelled_total", engine.cancelled_total, "Answers whose client went away.");
  counter("requests_failed_total", engine.failed_total, "Answers that ended with an error.");
  counter("requests_rejected_total", engine.rejected_total, "Answers refused before they began.");
  gauge("requests_waiting", engine.waiting, "Answers in the queue.");
  gauge("requests_running", engine.running, "Answers in the batch.");
  counter("preemptions_total", engine.preemptions_total, "Answers put back for want of pages.");
  counter("steps_total", engine.steps_total, "Forward passes.");
  counter("prompt_tokens_total", engine.prompt_tokens_total, "Prompt tokens admitted.");
  counter("cached_tokens_total", engine.cached_tokens_total, "Of these, found in the cache.");
  counter("computed_tokens_total", engine.computed_tokens_total, "Of these, computed.");
  out +=
      "# HELP trellis_missed_tokens_total Prompt tokens computed, by why they were not found.\n"
      "# TYPE trellis_missed_tokens_total counter\n";
  for (size_t i = 0; i < kNumMissCauses; i++) {
    out += fmt::format("trellis_missed_tokens_total{{cause=\"{}\"}} {}\n",
                       MissCauseName(static_cast<MissCause>(i)), engine.missed_total.tokens[i]);
  }
  counter("recomputed_tokens_total", engine.recomputed_tokens_total,
          "Tokens computed again after a preemption.");
  counter("generated_tokens_total", engine.generated_tokens_total, "Tokens sampled.");
  gauge("cache_pages_capacity", cache.capacity, "Pages of keys and values there are.");
  gauge("cache_pages_free", cache.free, "Pages that hold nothing.");
  gauge("cache_pages_private", cache.private_pages, "Pages that one answer appends to.");
  gauge("cache_pages_committed", cache.committed, "Pages in the tree.");
  gauge("cache_pages_pinned", cache.pinned, "Pages in the tree that an answer in progress uses.");
  gauge("cache_page_bytes", cache.page_bytes, "Size of a page.");
  gauge("cache_nodes", cache.num_nodes, "Nodes of the tree.");
  counter("cache_pages_evicted_total", cache.pages_evicted, "Pages given up for others.");
  counter("cache_lookups_total", cache.lookups, "Prompts looked up.");
  counter("cache_tokens_looked_up_total", cache.tokens_looked_up, "Tokens of these prompts.");
  counter("cache_tokens_matched_total", cache.tokens_matched, "Of these, found.");
  requests.time_to_first_token.Print("trellis_time_to_first_token_seconds",
                                     "From a request's arrival to its first token.", &out);
  requests.inter_token_latency.Print("trellis_inter_token_seconds",
                                     "From one token of an answer to the next.", &out);
  requests.prompt_tokens.Print("trellis_request_prompt_tokens", "Prompt tokens of an answer.",
                               &out);
  requests.computed_tokens.Print("trellis_request_computed_tokens",
                                 "Of these, computed; the rest was cached.", &out);
  return out;
}

}  // namespace trellis
