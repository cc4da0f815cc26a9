// StepLoop: the engine without its thread. Prepare() and Run() are one step of the model:
//
//   Prepare: reserve frames (preempt if there are none) -> admit -> Plan
//   Run:     Forward -> commit -> sample
//
// Who runs gets its frames before anybody is admitted: else a newcomer would take them, and be
// preempted for it before it had run a row.
//
// What the sinks have to hear is kept until Deliver(), so that statistics can be published first.
//
// THREADS: one; it is the only caller of the cache and the model.
// INVARIANTS: a running request holds a lease and, during Forward, frames for all its known tokens;
// a waiting one holds nothing. running_ is ordered by age. Whenever nothing runs, the waiting
// request that goes first is admitted or ends, so there is no deadlock. Within a session and a
// priority the oldest is never preempted for a younger one, and for others' shares only when its
// client is ahead by twice as much as the last time (sched/precedence.h), so there is no livelock.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "engine/engine.h"
#include "engine/request.h"
#include "kv/page_cache.h"
#include "kv/pin_table.h"
#include "model/model.h"
#include "model/step_profile.h"
#include "sched/chunk_size.h"
#include "sched/fair_share.h"
#include "sched/plan.h"
#include "sched/wait_queue.h"

namespace trellis {

class StepLoop {
 public:
  struct Options {
    Limits limits;
    // Steps in which somebody decodes should take no longer; 0: limits.mixed_step_tokens, whatever
    // they take.
    std::chrono::duration<double> max_inter_token{0};
    double max_pinned_share = 0.25;  // of the cache's pages
    ComputePool* pool = nullptr;     // may be null
    StepProfile* profile = nullptr;  // told what the loop itself does; may be null
  };
  StepLoop(Model& model, std::unique_ptr<PageCache> cache, const Options& options);

  void Add(std::unique_ptr<Request> request);
  // With kCancelled or kStop. Unknown ids are ignored.
  void EndEarly(RequestId id, FinishReason reason);
  void CancelAll();
  void ResetCache();
  size_t Unpin(const std::string& tenant, std::optional<PinId> id);
  std::vector<PinTable::View> Pins() const { return pins_.List(); }
  // When a retention ends, whether or not anything runs.
  std::optional<PinTable::TimePoint> NextExpiry() const { return pins_.NextExpiry(); }

  // Nothing to do but Deliver().
  bool idle() const { return running_.empty() && waiting_.empty(); }

  void Prepare();
  // Nothing may be added or cancelled between Prepare and Run.
  void Run();
  // Calls the sinks; returns how many requests were told that they are finished.
  size_t Deliver();

  EngineStats Stats() const;
  PageCacheStats CacheStats() const { return cache_->Stats(); }
  const PageCache& cache() const { return *cache_; }

 private:
  struct Reached {
    Stage stage;
    GenerateTimings so_far;
  };
  struct Finish {
    FinishReason reason;
    Status status;
    GenerateTimings timings;
  };
  struct Event {
    std::shared_ptr<GenerationSink> sink;
    std::variant<PromptProgress, Reached, SampledToken, std::vector<float>, Finish> what;
  };
  // A row whose logits were computed; none of a prompt whose embedding is complete.
  struct LogitRow {
    Request* request = nullptr;
    std::span<const float> logits;
    SampledToken token = {};
    Status status = {};
  };

  void Admit();
  Request* NextToAdmit();
  bool HasPlace() const { return running_.size() < options_.limits.max_running; }
  size_t NumCached(const Request& request) const;
  bool IsStuck() const;
  bool IsBlocked(const Request& request) const;
  bool TryAdmit(Request& request);
  bool TakeLease(Request& request);
  bool MakeRoomFor(const Request& request);
  void ReserveRows();
  void Preempt(Request& request);
  Claim MakeClaim(const Request& request, size_t locality) const;
  std::vector<Claim> RunningClaims() const;
  Snapshot MakeSnapshot() const;
  SequenceRows RowsFor(const PlannedRows& planned);
  void Forward(const BatchPlan& plan);
  void Commit(const BatchPlan& plan);
  void Pin(Request& request);
  void Sample(const BatchPlan& plan);
  void SampleRow(LogitRow& row) const;
  Status KeepToConstraint(LogitRow& row) const;
  void Accept(LogitRow& row);
  void FinishEmbedding(Request& request);
  void Reach(Request& request, Stage stage);
  void End(Request& request, FinishReason reason, Status status);

  std::unique_ptr<Request> TakeWaiting(const Request& request);
  std::unique_ptr<Request> TakeRunning(const Request& request);
  void CountTotals(const GenerateTimings& before, const GenerateTimings& after);

  Model& model_;
  const std::unique_ptr<PageCache> cache_;
  const Options options_;
  const Joining joining_;  // never, where the cache keeps nothing: then there is nothing to share
  const size_t vocab_size_;

  PinTable pins_;
  std::map<RequestId, std::unique_ptr<Request>> waiting_;
  std::map<std::string, size_t> waiting_of_tenant_;  // how many; none: 0
  std::vector<std::unique_ptr<Request>> running_;    // oldest first
  WaitQueue queue_;   // over waiting_ and those of running_ in prefill
  FairShare shares_;  // over both
  // The request that went first when it found too few pages. It need not look again before there
  // are more (a release, or pages that two requests computed), or fewer run.
  struct Blocked {
    RequestId id;
    size_t available_pages;
  };
  std::optional<Blocked> blocked_;
  // When somebody found no place: until somebody comes or goes, there are more pages, or a quantum
  // was computed, so that others may lead, nobody need look again.
  struct Stuck {
    size_t available_pages;
    uint64_t num_charged;
  };
  std::optional<Stuck> stuck_;
  uint64_t num_charged_ = 0;  // rows

  ChunkSize chunk_size_;
  Request::Clock::time_point step_began_;
  BatchPlan plan_;
  std::vector<SequenceRows> batch_;
  std::vector<size_t> row_numbers_;  // 0, 1, ...: what SequenceRows::logit_rows points into
  std::vector<float> logits_;        // [rows with logits, vocab_size]
  std::vector<LogitRow> sampled_;
  std::vector<Event> events_;
  EngineStats stats_;
};

}  // namespace trellis
