#include "server/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "base/check.h"

namespace trellis {
namespace {

constexpr double kSeconds[] = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                               1,     2.5,  5,     10,   25,  50,   100};
constexpr double kLongSeconds[] = {0.01, 0.05, 0.1, 0.25, 0.5, 1,   2.5,  5,
                                   10,   25,   50,  100,  250, 500, 1000, 2500};
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

void Histogram::Print(const std::string& name, const std::string& labels, std::string* out) const {
  uint64_t count = 0;
  const char* comma = labels.empty() ? "" : ",";
  for (size_t i = 0; i <= bounds_.size(); i++) {
    count += counts_[i];
    const std::string bound = i < bounds_.size() ? fmt::format("{}", bounds_[i]) : "+Inf";
    *out += fmt::format("{}_bucket{{{}{}le=\"{}\"}} {}\n", name, labels, comma, bound, count);
  }
  const std::string braces = labels.empty() ? "" : "{" + labels + "}";
  *out += fmt::format("{0}_sum{1} {2}\n{0}_count{1} {3}\n", name, braces, sum_.load(), count);
}

RequestMetrics::RequestMetrics()
    : time_to_first_token(kSeconds),
      inter_token_latency(kSeconds),
      queue_time(kLongSeconds),
      e2e_latency(kLongSeconds),
      prompt_tokens(kTokens),
      computed_tokens(kTokens) {}

namespace {

// A label's value, as it is written between quotes.
std::string Escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == '\n') {
      out += "\\n";
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

// Collects the samples of each metric, of whatever models, under its # HELP and # TYPE.
class Exposition {
 public:
  // Of what follows; empty: of no model by name.
  void SetModel(const std::string& model) {
    labels_ = model.empty() ? "" : fmt::format("model=\"{}\"", Escaped(model));
  }

  void Counter(const char* name, uint64_t value, const char* help) {
    Head("counter", name, help);
    Add(labels_, value);
  }
  template <typename Value>
  void Gauge(const char* name, Value value, const char* help) {
    Head("gauge", name, help);
    Add(labels_, value);
  }
  void Print(const char* name, const Histogram& histogram, const char* help) {
    Head("histogram", name, help);
    histogram.Print(metric_->name, labels_, &metric_->samples);
  }
  void Head(const char* type, const char* name, const char* help) {
    const std::string full_name = fmt::format("trellis_{}", name);
    const auto found = std::find_if(metrics_.begin(), metrics_.end(),
                                    [&](const Metric& it) { return it.name == full_name; });
    metric_ = found != metrics_.end() ? &*found : &metrics_.emplace_back();
    metric_->name = full_name;
    metric_->head = fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", full_name, help, type);
  }
  // Of the metric whose head came last.
  void Sample(const char* label, const char* label_value, uint64_t value) {
    Add(fmt::format("{}{}{}=\"{}\"", labels_, labels_.empty() ? "" : ",", label, label_value),
        value);
  }

  std::string Text() const {
    std::string text;
    for (const Metric& metric : metrics_) text += metric.head + metric.samples;
    return text;
  }

 private:
  struct Metric {
    std::string name, head, samples;
  };
  template <typename Value>
  void Add(const std::string& labels, Value value) {
    const std::string braces = labels.empty() ? "" : "{" + labels + "}";
    metric_->samples += fmt::format("{}{} {}\n", metric_->name, braces, value);
  }

  std::deque<Metric> metrics_;  // in the order in which they came
  Metric* metric_ = nullptr;
  std::string labels_;
};

void PrintRequests(const EngineStats& engine, Exposition& out) {
  out.Counter("requests_total", engine.requests_total, "Answers that were asked for and accepted.");
  out.Counter("requests_rejected_total", engine.rejected_total,
              "Answers refused before they began.");
  out.Head("counter", "request_success_total", "Answers that have ended, well or not, by how.");
  out.Sample("finished_reason", "stop", engine.finished_total - engine.length_total);
  out.Sample("finished_reason", "length", engine.length_total);
  out.Sample("finished_reason", "abort", engine.cancelled_total);
  out.Sample("finished_reason", "error", engine.failed_total);
  out.Gauge("num_requests_waiting", engine.waiting, "Answers in the queue.");
  out.Gauge("num_requests_running", engine.running, "Answers in the batch.");
  out.Counter("num_preemptions_total", engine.preemptions_total,
              "Answers put back for want of pages.");
  out.Gauge("num_clients", engine.clients, "Clients that have answers waiting or running.");
  out.Gauge("fairness_largest_lead_tokens", engine.largest_lead,
            "Computed tokens by which the client that had most is ahead of an even share.");
  out.Gauge("mixed_step_tokens", engine.mixed_step_tokens,
            "Rows that a step may have in which answers are written.");
  out.Counter("steps_total", engine.steps_total, "Forward passes.");
}

void PrintTokens(const EngineStats& engine, Exposition& out) {
  out.Counter("prompt_tokens_total", engine.prompt_tokens_total, "Prompt tokens admitted.");
  out.Counter("prompt_tokens_cached_total", engine.cached_tokens_total,
              "Of these, found in the cache.");
  out.Counter("computed_tokens_total", engine.computed_tokens_total, "Of these, computed.");
  out.Counter("abandoned_tokens_total", engine.abandoned_tokens_total,
              "Of these, neither, as their answer ended before.");
  out.Head("counter", "missed_tokens_total", "Prompt tokens computed, by why they were not found.");
  for (size_t i = 0; i < kNumMissCauses; i++) {
    out.Sample("cause", MissCauseName(static_cast<MissCause>(i)), engine.missed_total.tokens[i]);
  }
  out.Counter("recomputed_tokens_total", engine.recomputed_tokens_total,
              "Tokens computed again after a preemption.");
  out.Counter("generation_tokens_total", engine.generated_tokens_total, "Tokens sampled.");
  out.Counter("prefix_cache_queries_total", engine.queried_tokens_total,
              "Prompt tokens looked up in the cache, when their answer was admitted first.");
  out.Counter("prefix_cache_hits_total", engine.hit_tokens_total, "Of these, found.");
}

void PrintCache(const EngineStats& engine, const PageCacheStats& cache, Exposition& out) {
  const auto in_use = static_cast<double>(cache.private_pages + cache.pinned);
  out.Gauge("kv_cache_usage_perc", in_use / static_cast<double>(cache.capacity),
            "Share of the pages that answers in progress and pins use, 0 to 1; all others can be "
            "freed.");
  out.Gauge("cache_pages_capacity", cache.capacity, "Pages of keys and values there are.");
  out.Gauge("cache_pages_free", cache.free, "Pages that hold nothing.");
  out.Gauge("cache_pages_private", cache.private_pages, "Pages that one answer appends to.");
  out.Gauge("cache_pages_committed", cache.committed, "Pages in the tree.");
  out.Gauge("cache_pages_pinned", cache.pinned,
            "Pages in the tree that an answer in progress or a pin uses.");
  out.Gauge("cache_pins", engine.pins, "Prompts that are kept for a time.");
  out.Gauge("cache_pin_pages", engine.pinned_pages, "Pages that these hold.");
  out.Gauge("cache_page_bytes", cache.page_bytes, "Size of a page.");
  out.Counter("cache_pages_evicted_total", cache.pages_evicted,
              "Pages given up for others, since the start or the last reset of the cache.");
  out.Gauge("cache_leases", cache.num_leases, "Answers in progress that hold a path of the tree.");
  out.Gauge("cache_scopes", cache.num_scopes, "Keys and salts that something is cached for.");
  out.Gauge("cache_nodes", cache.num_nodes, "Nodes of the tree.");
  out.Gauge("cache_node_bytes", cache.tree_bytes, "Memory of the nodes, beside the pages.");
  out.Gauge("cache_ghosts", cache.num_ghosts, "Evicted pages that are remembered.");
  out.Gauge("cache_ghost_bytes", cache.ghost_bytes, "Memory of these.");
}

void PrintTimes(const RequestMetrics& requests, Exposition& out) {
  out.Print("time_to_first_token_seconds", requests.time_to_first_token,
            "From a request's arrival to its first token.");
  out.Print("inter_token_latency_seconds", requests.inter_token_latency,
            "From one token of an answer to the next.");
  out.Print("request_queue_time_seconds", requests.queue_time,
            "From a finished answer's arrival to its admission.");
  out.Print("e2e_request_latency_seconds", requests.e2e_latency,
            "From a finished answer's arrival to its end.");
  out.Print("request_prompt_tokens", requests.prompt_tokens, "Prompt tokens of an answer.");
  out.Print("request_prefill_kv_computed_tokens", requests.computed_tokens,
            "Of these, computed; the rest was cached.");
}

}  // namespace

std::string MetricsText(const std::vector<ModelMetrics>& models, uint64_t http_requests) {
  Exposition out;
  out.Counter("http_requests_total", http_requests, "HTTP requests read.");
  for (const ModelMetrics& model : models) {
    out.SetModel(model.model);
    PrintRequests(model.engine, out);
    PrintTokens(model.engine, out);
    PrintCache(model.engine, model.cache, out);
    PrintTimes(model.requests, out);
  }
  return out.Text();
}

}  // namespace trellis
