// StepProfile: where the time of steps goes, part by part, for `trellis bench --profile`. Who runs
// a part reports to it; without a profile that costs a comparison.
//
// A part is a fork-join or a stretch of serial code. In a fork-join, threads x wall is what its
// items took (busy), and what was lost: before a thread's first item, between items and after the
// last of all (fork_join), and by threads that had nothing left while others still worked (idle).
// Everything is measured, two readings of the clock per item; nothing is derived from a model of
// the machine.
//
// THREADS: the one that steps; items report from the pool's.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ceilings.h"
#include "os/compute_pool.h"

namespace trellis {

// What a part has to do at least, to be held against the machine's ceilings. Zero: not counted.
struct StepWork {
  double macs = 0;  // multiply-adds
  Arithmetic arithmetic = Arithmetic::kF32;
  double bytes = 0;  // of weights, or of keys and values, each read once
};

class StepProfile {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  struct Part {
    std::string name;
    size_t calls = 0;
    StepWork work;  // of all calls
    // Of all calls, on the clock on the wall: time = wall - fork_join - idle, each of them the mean
    // over the threads.
    Seconds time{}, fork_join{}, idle{};
  };

  // Parts in the order of their first appearance.
  const std::vector<Part>& parts() const { return parts_; }
  void Clear() { parts_.clear(); }

  // pool.ParallelFor(num_items, body, order), as a call of part `name`. A single item is serial
  // code.
  template <typename Body>
  void ParallelFor(ComputePool& pool, std::string_view name, const StepWork& work, size_t num_items,
                   const Body& body, ComputePool::Order order = ComputePool::Order::kShares) {
    threads_.assign(pool.num_threads(), {});
    const Clock::time_point begin = Clock::now();
    const auto timed = [&](size_t item, size_t thread) {
      ThreadTimes& t = threads_[thread];
      const Clock::time_point start = Clock::now();
      body(item, thread);
      t.end = Clock::now();
      t.busy += t.end - start;
    };
    pool.ParallelFor(num_items, timed, order);
    const Clock::time_point end = Clock::now();
    if (num_items == 1) return AddSerial(name, work, end - begin);
    AddForkJoin(name, work, begin, end);
  }

  void AddSerial(std::string_view name, const StepWork& work, Seconds wall);

  // Counts what happens until its end as serial code of part `name`; with no profile, nothing.
  class Timer {
   public:
    Timer(StepProfile* profile, std::string_view name) : profile_(profile), name_(name) {
      if (profile_ != nullptr) begin_ = Clock::now();
    }
    ~Timer() {
      if (profile_ != nullptr) profile_->AddSerial(name_, {}, Clock::now() - begin_);
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    StepProfile* const profile_;
    const std::string_view name_;
    Clock::time_point begin_;
  };

 private:
  struct alignas(64) ThreadTimes {
    Seconds busy{};
    Clock::time_point end{};  // of the thread's last item; the epoch if it had none
  };

  void AddForkJoin(std::string_view name, const StepWork& work, Clock::time_point begin,
                   Clock::time_point end);
  Part& Count(std::string_view name, const StepWork& work);

  std::vector<Part> parts_;
  std::vector<ThreadTimes> threads_;  // of the call at hand
};

}  // namespace trellis
