// Engine: one thread that owns the cache and the scheduler, and steps the model.
//
//   Submit() -> inbox -> [engine thread: admit -> plan -> Forward -> sample -> commit -> sink] ...
//
// THREADS: Submit, Cancel, Stats, CacheStats, ResetCache may be called from any thread. Sinks are
// called on the engine thread and must not block.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "kv/page_cache.h"
#include "sample/sampler.h"

namespace trellis {

class Model;

struct GenerateRequest {
  std::vector<TokenId> prompt;      // at least one token
  std::vector<TokenId> end_tokens;  // generation stops at any of them (not given to the sink); the
                                    // vocabulary's EOG tokens, or empty
  size_t max_tokens = 0;            // 0: to the end of the context
  SamplingParams sampling;
  std::string scope;         // tenant or salt; part of the cache key
  bool cache_prompt = true;  // false: match nothing
};

enum class FinishReason { kStop, kLength, kCancelled, kError };

// Times are measured on the engine thread.
struct GenerateTimings {
  size_t prompt_tokens = 0;
  size_t cached_tokens = 0;    // matched at first admission: cached + computed == prompt
  size_t computed_tokens = 0;  // prompt tokens really run, the last one included (recomputation
                               // after preemption is in `recomputed`)
  size_t recomputed_tokens = 0;
  size_t generated_tokens = 0;
  std::chrono::duration<double, std::milli> queued{}, prompt{}, predicted{};
};

// Where a request's tokens go. Called on the engine thread; must not block or call back into the
// engine synchronously, except Cancel.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  virtual void OnPromptProgress(size_t done, size_t total) { (void)done, (void)total; }
  virtual void OnToken(const SampledToken& token) = 0;
  // Exactly once, last. `status` is ok unless reason is kError.
  virtual void OnFinish(FinishReason reason, const Status& status,
                        const GenerateTimings& timings) = 0;
};

struct EngineStats {
  size_t waiting = 0, running = 0;
  uint64_t requests_total = 0, finished_total = 0, cancelled_total = 0, failed_total = 0,
           preemptions_total = 0;
  uint64_t prompt_tokens_total = 0, cached_tokens_total = 0, computed_tokens_total = 0,
           generated_tokens_total = 0;
  uint64_t steps_total = 0;
};

class Engine {
 public:
  struct Options {
    size_t context_size = 0;   // 0: the model's
    size_t max_queue = 512;    // waiting requests; more are refused
    size_t max_running = 64;   // requests in a batch
    size_t step_tokens = 512;  // token budget of a step; decode rows come first
    bool prefix_cache = true;
  };
  // Takes the cache; starts the thread. `model` outlives the engine.
  static Result<std::unique_ptr<Engine>> Create(Model& model, std::unique_ptr<PageCache> cache,
                                                const Options& options);
  ~Engine();  // cancels what runs

  // ERRORS: kInvalidArgument, kTooLarge (prompt does not fit the context, or could never fit the
  // cache budget), kResourceExhausted (queue full), kUnavailable (draining). The sink is called
  // only if Submit succeeded.
  Result<RequestId> Submit(GenerateRequest request, std::shared_ptr<GenerationSink> sink);
  // Idempotent; unknown ids are ignored.
  void Cancel(RequestId id);

  // No new work is accepted; returns when what runs has finished, or cancels it after `timeout`.
  void Drain(std::chrono::milliseconds timeout);

  EngineStats Stats() const;
  PageCacheStats CacheStats() const;  // as of the last step
  // Drops what no running request pins; returns when done.
  void ResetCache();

  size_t context_size() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
