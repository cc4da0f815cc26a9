// RequestLog: what requests are doing, and how the last ones went, for people and programs that
// watch (GET /v1/requests).
//
//   Add -> Record: waiting -> prompt -> generating -> finished -> forgotten, behind newer ones
//
// Memory is bounded: what has not finished is limited by the engine's queues and batch, and of what
// has, each owner's last kMaxFinished are kept. An owner is a line's scope in the file of keys, so
// there are few, and none pushes out what another one wants to see.
//
// THREADS: any. A Record is its sink's alone, and is outlived by the log.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"

namespace trellis {

struct LoggedRequest {
  enum class State { kWaiting, kPrompt, kGenerating, kFinished };
  using Time = std::chrono::system_clock::time_point;

  std::string id;          // of the answer
  size_t choice = 0;       // its place in it
  std::string owner = {};  // the scope of its key, without a salt
  std::string scope = {};  // where it is cached
  State state = State::kWaiting;
  FinishReason reason = FinishReason::kStop;  // kFinished: how
  uint64_t seq = 0;                           // of the log's changes, the last one of this
  GenerateTimings timings = {};               // as of that; generated_tokens as of now
  Time submitted{}, admitted{}, first_token{}, finished{};  // what has not come is zero
};

class RequestLog {
  struct Place;  // a request in a list, whose address stays

 public:
  static constexpr size_t kMaxFinished = 256;

  // A request's place in the log. Move-only; one that is destroyed before Finish was refused, and
  // is forgotten.
  class Record {
   public:
    Record(Record&& other) noexcept;
    Record& operator=(Record&&) = delete;
    ~Record();

    void Reach(Stage stage, const GenerateTimings& so_far);
    void CountToken();  // one atomic addition
    // Once, last.
    void Finish(FinishReason reason, const GenerateTimings& timings);

   private:
    friend class RequestLog;
    Record(RequestLog& log, std::list<Place>::iterator place) : log_(&log), place_(place) {}
    RequestLog* log_;  // null: finished, or moved from
    std::list<Place>::iterator place_;
  };

  // It is waiting from now on. `request`: id, choice, owner and scope; and the prompt's tokens.
  Record Add(LoggedRequest request);

  struct Changes {
    uint64_t seq = 0;                     // of the last change
    std::vector<LoggedRequest> requests;  // by their last change
  };
  // Of those that `is_shown`: all that have not finished, and what has finished behind change
  // `since`, the last kMaxFinished. `is_shown` is called with the lock held.
  Changes Since(uint64_t since, const std::function<bool(const LoggedRequest&)>& is_shown) const;

 private:
  struct Place {
    explicit Place(LoggedRequest r) : request(std::move(r)) {}
    LoggedRequest request;
    std::atomic<size_t> num_tokens{0};
  };

  mutable Mutex mutex_;
  uint64_t last_seq_ TRELLIS_GUARDED_BY(mutex_) = 0;
  std::list<Place> unfinished_ TRELLIS_GUARDED_BY(mutex_);
  std::map<std::string, std::list<Place>> finished_ TRELLIS_GUARDED_BY(mutex_);  // by owner
};

}  // namespace trellis
