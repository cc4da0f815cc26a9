// Engine: one thread that owns the cache and the scheduler, and steps the model.
//
//   Submit() -> inbox -> [engine thread: admit -> plan -> Forward -> sample -> commit -> sink] ...
//
// THREADS: Submit, Cancel, Finish, Stats, CacheStats, ResetCache, Unpin, Pins, Inspect and Drain
// may be called from any thread. Sinks are called on the engine thread, with no lock held, and must
// not block.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "kv/page_cache.h"
#include "kv/pin_table.h"
#include "model/model_spec.h"
#include "sample/constraint.h"
#include "sample/sampler.h"
#include "sched/fair_share.h"

namespace trellis {

class ComputePool;
class Model;

// The beginning of a prompt that stays cached for a time, whatever else comes (kv/pin_table.h).
struct Retention {
  size_t num_tokens = 0;
  std::chrono::seconds lifetime{0};
};

struct GenerateRequest {
  std::vector<TokenId> prompt;      // at least one token
  std::vector<TokenId> end_tokens;  // generation stops at any of them (not given to the sink); the
                                    // vocabulary's EOG tokens, or empty
  size_t max_tokens = 0;            // 0: to the end of the context
  // Nothing is generated: the prompt's embedding is wanted. REQUIRES: kMean: no cache_prompt, since
  // all of it has to be run.
  std::optional<Pooling> pooling = {};
  SamplingParams sampling;
  std::shared_ptr<Constraint> constraint;  // of this request alone; null: anything may be generated
  std::string scope;                       // tenant or salt; part of the cache key
  // Another scope that its client may read: what that has and its own has not is explained by it
  // (MissCause::kScope).
  std::optional<std::string> wider_scope;
  ClientName client;                      // whose share of the machine it uses
  int32_t priority = 0;                   // among its tenant's requests: smaller goes first
  std::optional<int32_t> cache_priority;  // PageCache::SetPriority; none: the same
  // False: match nothing but rows that it ran itself before a preemption, and wait for nobody's
  // prefill.
  bool cache_prompt = true;
  std::vector<Retention> retentions;  // from when the prompt is computed
  // What is generated, if it begins with these tokens (whatever it is, if they are none), will not
  // be in the next turn's prompt: a thinking model's template drops it. It is the first to go from
  // the cache then.
  std::optional<std::vector<TokenId>> dropped_if_begins;
};

enum class FinishReason {
  kStop,       // an end token was sampled, or Finish()
  kLength,     // max_tokens, the end of the context, or the cache is too small for one more row
  kCancelled,  // Cancel(), Drain()'s timeout or ~Engine()
  kError,
};

// Why prompt tokens were computed.
struct MissCounts {
  std::array<size_t, kNumMissCauses> tokens{};  // by MissCause

  size_t& operator[](MissCause cause) { return tokens[static_cast<size_t>(cause)]; }
  size_t operator[](MissCause cause) const { return tokens[static_cast<size_t>(cause)]; }
  void Add(const MissCounts& other) {
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] += other.tokens[i];
  }
};

// Where a prompt left what is cached in its scope: the first tokens from there on, of both.
struct Divergence {
  size_t position = 0;
  std::vector<TokenId> prompt, cached;
};

// Times are measured on the engine thread.
struct GenerateTimings {
  // cached + computed == prompt, once the prompt is done. `computed` counts each prompt token that
  // this request ran for the first time, the last one included: an identical prompt of n tokens
  // finds n - 1 cached. What a preempted request has to run again is in `recomputed`.
  size_t prompt_tokens = 0;
  size_t cached_tokens = 0;
  size_t computed_tokens = 0;
  size_t recomputed_tokens = 0;
  MissCounts missed;  // they are `computed` together
  std::optional<Divergence> divergence = {};
  PinTable::Added pin;          // the longest of its retentions
  size_t generated_tokens = 0;  // sampled; an end token counts, though the sink never sees it
  // Of the node that its lease ended in when this was said (TreeView::Node::id); 0: it had none.
  uint64_t tree_node = 0;
  // Submit to first admission; from there to the first sampled token; from there to the end.
  std::chrono::duration<double, std::milli> queued{}, prompt{}, predicted{};
};

// Of a prompt's `total` tokens `cached` were found in the cache, and `done` are in it now.
struct PromptProgress {
  size_t total = 0, cached = 0, done = 0;
};

// How far a request has come.
enum class Stage {
  kPrompt,      // it has a place in the batch, for the first time: cached_tokens are known
  kGenerating,  // its prompt is computed, and its first token sampled: `missed` is known
};

// Where a request's tokens go. Called on the engine thread; must not block, throw, or call back
// into the engine, except Cancel, Finish and Submit.
class GenerationSink {
 public:
  virtual ~GenerationSink() = default;
  // After each chunk of the prompt.
  virtual void OnPromptProgress(const PromptProgress& progress) { (void)progress; }
  // When it has got there; `so_far` is what is known by then.
  virtual void OnStage(Stage stage, const GenerateTimings& so_far) { (void)stage, (void)so_far; }
  virtual void OnToken(const SampledToken& token) = 0;
  // Instead of tokens, for GenerateRequest::pooling: [embedding_length], of length 1.
  virtual void OnEmbedding(std::vector<float> embedding) { (void)embedding; }
  // Exactly once, last. `status` is ok unless reason is kError.
  virtual void OnFinish(FinishReason reason, const Status& status,
                        const GenerateTimings& timings) = 0;
};

struct EngineStats {
  size_t waiting = 0, running = 0;  // now; a preempted request is waiting
  // Since start. Every request ends as exactly one of finished (stop, length), cancelled, failed;
  // one that Submit refused is in rejected alone.
  uint64_t requests_total = 0, finished_total = 0, cancelled_total = 0, failed_total = 0,
           rejected_total = 0, preemptions_total = 0;
  uint64_t length_total = 0;  // of finished_total, those with kLength
  // Of prompts that were admitted. cached + computed + abandoned == prompt once all have ended;
  // abandoned: not reached before their answer ended.
  uint64_t prompt_tokens_total = 0, cached_tokens_total = 0, computed_tokens_total = 0,
           abandoned_tokens_total = 0;
  // As vLLM counts its prefix cache: at the first admission, unless cache_prompt is false.
  uint64_t queried_tokens_total = 0, hit_tokens_total = 0;
  uint64_t recomputed_tokens_total = 0, generated_tokens_total = 0;
  MissCounts missed_total;  // of computed_tokens_total
  uint64_t steps_total = 0;
  // Now: clients (sessions) that have requests; by how many computed tokens the one, tenant or
  // session, that had most is ahead of an even share; rows that a step in which somebody decodes
  // may have.
  size_t pins = 0, pinned_pages = 0, max_pinned_pages = 0;  // now: of retentions
  size_t clients = 0, largest_lead = 0, mixed_step_tokens = 0;
  std::map<std::string, size_t> waiting_of_tenant;  // of `waiting`; tenants with none are not there
};

class Engine {
 public:
  struct Options {
    size_t context_size = 0;   // 0: the model's
    size_t max_queue = 512;    // requests of a tenant not admitted yet; more are refused
    size_t max_running = 64;   // requests in a batch
    size_t step_tokens = 512;  // token budget of a step; decode rows come first
    // Budget of a step in which a request decodes: its next token waits for the whole step, so such
    // a step takes smaller bites of the prompts beside it. This large at first, then so that such a
    // step takes about max_inter_token; 0: always so.
    size_t mixed_step_tokens = 128;
    std::chrono::milliseconds max_inter_token{200};
    double max_pinned_share = 0.25;  // of the cache's pages that retentions may hold together
    // The model's pool, to sample the rows of a step in parallel; null: on the engine thread alone.
    ComputePool* pool = nullptr;
  };
  // Takes the cache; starts the thread. `model` and `options.pool` outlive the engine; nobody else
  // calls them meanwhile.
  // ERRORS: kInvalidArgument: the cache is not of the model's layout, a limit is 0, context_size
  // exceeds the model's. kIo: the system gives no thread.
  static Result<std::unique_ptr<Engine>> Create(Model& model, std::unique_ptr<PageCache> cache,
                                                const Options& options);
  ~Engine();  // cancels what runs and waits; OnFinish has been called for all

  // ERRORS: kInvalidArgument (empty prompt, a token or a sampling field out of range), kTooLarge
  // (prompt and one token do not fit the context, or the prompt alone could never fit the cache
  // budget), kResourceExhausted (queue full), kUnavailable (draining). The sink is called only if
  // Submit succeeded, possibly before it returns.
  Result<RequestId> Submit(GenerateRequest request, std::shared_ptr<GenerationSink> sink);
  // The request ends before the next step, with kCancelled unless it has ended by then, and its
  // pages are free at once. Idempotent; unknown ids are ignored.
  void Cancel(RequestId id);
  // The same, with kStop: for an answer that is complete, for a reason that its reader alone knows
  // (a stop string).
  void Finish(RequestId id);

  // From now on Submit refuses (kUnavailable). Returns when everything accepted, waiting or
  // running, has finished; what has not after `timeout` is cancelled. Not from a sink.
  void Drain(std::chrono::milliseconds timeout);

  EngineStats Stats() const;
  // As of the last step; a request's end is in it before its OnFinish is called.
  PageCacheStats CacheStats() const;
  // Drops what no running request pins, retentions too; returns when done. Not from a sink.
  void ResetCache();
  // Ends one retention of the tenant, or all of them (no id); returns how many that were. Not from
  // a sink.
  size_t Unpin(const std::string& tenant, std::optional<PinId> id);
  // The retentions that hold something now; an owner is a tenant. Not from a sink.
  std::vector<PinTable::View> Pins();
  // Shows the cache, which is the engine thread's alone: calls `look` there between two steps, and
  // returns when it has. Every answer waits meanwhile, so it should take less than a step; it must
  // not throw, nor call the engine. Not from a sink.
  void Inspect(const std::function<void(const PageCache&)>& look);

  size_t context_size() const;
  size_t max_queue() const;
  size_t max_running() const;

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
