// ModelPool: the models that a server serves, each with an engine of its own: loaded when one is
// asked for, unloaded when another needs the memory.
//
//              Request             done                    another one needs its memory
//   unloaded ----------> loading --------> loaded --+--------------> leaving --> unloaded
//                           |                ^      |  (no new leases)    |   (no lease is left)
//                           +--> unloaded    |      +--- leases ---+      |
//                              (an error)    +---------------------+------+ (nobody waits any more)
//
// THREADS: any, for every method; one thread of its own loads and unloads, one model at a time.
// LIFETIME: outlives its leases.
// INVARIANTS:
//   1. A model that has a lease is not unloaded.
//   2. What is loaded and loading takes Options::memory_bytes at most, by ModelInfo::memory_bytes.
//   3. Whoever waits for the same model gets the same load, or its error; the next one tries anew.
//   4. Who waits longest is first. Room is made for it among the models that nobody uses, the one
//      used longest ago first; where these do not suffice, those in use get no new leases until
//      there is room. So nobody waits for ever, and no answer is broken off.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "server/log.h"
#include "server/model_source.h"
#include "server/service.h"

namespace trellis {

class ModelLease;

struct ListedModel {
  enum class State { kUnloaded, kLoading, kLoaded };
  ModelInfo info;
  State state = State::kUnloaded;
  double progress = 0;  // kLoading: 0 to 1
};

class ModelPool {
  struct Resident;

 public:
  struct Options {
    size_t memory_bytes = 0;    // of all models that are loaded
    size_t max_waiting = 512;   // requests of a tenant that wait for a model; more are refused
    std::string default_model;  // meant where none is named; empty: the only one there is
    Log log{LogFormat::kText};
  };
  // ERRORS: kIo: the system gives no thread.
  static Result<std::unique_ptr<ModelPool>> Create(std::unique_ptr<ModelSource> source,
                                                   const Options& options);
  // One model, which stays.
  explicit ModelPool(std::unique_ptr<Service> only);
  ~ModelPool();
  ModelPool(const ModelPool&) = delete;
  ModelPool& operator=(const ModelPool&) = delete;

  // Whether there may be more than one.
  bool has_many() const { return source_ != nullptr; }

  // --- For an answer ---

  // The model that `name` means (none: the default one) if it is loaded and may be used at once;
  // else an empty lease. Reads no files: other names than its own are known from Find().
  ModelLease TryAcquire(const std::string& name);
  // Which model `name` means. Reads files. ERRORS: kNotFound, kInvalidArgument (it may be several),
  // those of ModelSource.
  Result<ModelInfo> Find(const std::string& name);
  // Calls `callback` once, with no lock held, on this thread or the pool's: with the lease when the
  // model is loaded, or with why it never will be (kResourceExhausted: max_waiting; kUnsupported:
  // it is larger than memory_bytes; kUnavailable: stopping; those of ModelSource::Load). Returns
  // what Cancel() takes.
  using Callback = std::function<void(Result<ModelLease>)>;
  uint64_t Request(const ModelInfo& model, const std::string& tenant, Callback callback);
  // Waits no longer; the callback may be running, or have run. Unknown ids are ignored.
  void Cancel(uint64_t id);

  // --- For who looks: loads nothing, and is no use ---

  // The model that `name` means, which is loaded; none: the default one, else the only one that is
  // loaded. Reads no files. ERRORS: kNotFound (it is not loaded), kInvalidArgument (several are).
  Result<ModelLease> Look(const std::string& name);
  std::vector<ModelLease> LookAtAll();  // that are loaded, by name
  std::vector<ModelInfo> Loaded() const;
  // All there are: the default one first, then by name. Reads files. ERRORS: kIo.
  Result<std::vector<ListedModel>> List();
  Result<ModelDetails> Describe(const ModelInfo& model);
  bool is_loading() const;

  // --- The end ---

  // Whoever waits is told kUnavailable, as whoever comes. No callback runs any more then.
  void Stop();
  // Stops, and drains all engines (Engine::Drain) within `timeout`.
  void Drain(std::chrono::milliseconds timeout);

 private:
  friend class ModelLease;
  enum class Use { kAnswer, kLook };
  struct Waiting {
    uint64_t id;
    ModelInfo model;
    std::string tenant;
    Callback callback;
  };
  struct Step;  // of the pool's thread

  ModelPool(std::unique_ptr<ModelSource> source, const Options& options);
  void Run();
  bool PlanStep(Step* step) TRELLIS_REQUIRES(mutex_);
  bool MakeRoom(size_t bytes) TRELLIS_REQUIRES(mutex_);
  void Load(Resident& resident);
  void HasCalled();
  size_t WaitingOf(const std::string& tenant) const TRELLIS_REQUIRES(mutex_);
  Resident* FindLoaded(const std::string& name) TRELLIS_REQUIRES(mutex_);
  ModelLease Lend(Resident& resident, Use use) TRELLIS_REQUIRES(mutex_);
  void Release(Resident& resident, Use use);
  std::string NamesOf(const std::vector<ModelInfo>& models) const;

  const std::unique_ptr<ModelSource> source_;  // null: there is only one model
  const Options options_;

  mutable Mutex mutex_;
  CondVar changed_;  // the thread: somebody waits or has gone, a lease has ended, stopping_
  bool stopping_ TRELLIS_GUARDED_BY(mutex_) = false;
  bool is_calling_ TRELLIS_GUARDED_BY(mutex_) = false;  // the thread: callbacks
  uint64_t last_id_ TRELLIS_GUARDED_BY(mutex_) = 0;
  uint64_t last_use_ TRELLIS_GUARDED_BY(mutex_) = 0;
  std::list<Waiting> waiting_ TRELLIS_GUARDED_BY(mutex_);  // in the order in which they came
  // Loaded and loading, by name.
  std::map<std::string, std::unique_ptr<Resident>> residents_ TRELLIS_GUARDED_BY(mutex_);
  // What else they were asked for by; that may mean another soon, as files come and go.
  struct OtherName {
    std::string name;
    std::chrono::steady_clock::time_point until;
  };
  std::map<std::string, OtherName> other_names_ TRELLIS_GUARDED_BY(mutex_);

  std::thread thread_;
};

// A pin on a loaded model. Move-only; any thread.
class ModelLease {
 public:
  ModelLease() = default;
  ModelLease(ModelLease&& other) noexcept;
  ModelLease& operator=(ModelLease&& other) noexcept;
  ~ModelLease();

  explicit operator bool() const { return resident_ != nullptr; }
  Service& operator*() const { return *service_; }
  Service* operator->() const { return service_; }

 private:
  friend class ModelPool;
  ModelLease(ModelPool& pool, ModelPool::Resident& resident, ModelPool::Use use);
  ModelPool* pool_ = nullptr;
  ModelPool::Resident* resident_ = nullptr;  // null: empty
  Service* service_ = nullptr;
  ModelPool::Use use_{};
};

}  // namespace trellis
