#include "os/compute_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace trellis {
namespace {

// How long a thread spins for work before it parks: longer than the gaps between the operations of
// one step, shorter than anything a person or a battery would notice.
constexpr std::chrono::microseconds kSpinTime(50);
constexpr int kSpinsPerClockRead = 16;

void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Spins until done() or for kSpinTime; says whether done().
template <typename Done>
bool SpinUntil(const Done& done) {
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int spin = 0; spin < kSpinsPerClockRead; spin++) {
      if (done()) return true;
      Relax();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return done();
}

}  // namespace

// A run is an epoch. The caller publishes the job, opens the epoch, works too, closes it when no
// item is left, and waits for those workers that joined. A worker that comes late (parked, or its
// core taken by another program) finds the epoch closed and never looks at the job, so nobody waits
// for it.
//
//   state:  epoch number << 17 | open << 16 | workers that joined and have not left
struct ComputePool::Impl {
  static constexpr uint64_t kMember = 1, kOpen = uint64_t{1} << 16, kEpoch = uint64_t{1} << 17;
  static constexpr uint64_t kMembers = kOpen - 1;
  static constexpr size_t kMaxThreads = 4096;  // well inside kMembers

  struct Job {
    Thunk thunk = nullptr;
    const void* body = nullptr;
  };

  // Items of a job that one thread is to begin with; [next, end) are left.
  struct alignas(64) Share {
    std::atomic<size_t> next{0};
    size_t end = 0;
  };

  alignas(64) std::atomic<uint64_t> state{0};
  Job job;                    // written while no epoch is open, read by members; comes with `state`
  std::vector<Share> shares;  // [threads]
  alignas(64) std::atomic<int> parked_workers{0};
  std::atomic<bool> stopping{false};
  Mutex mutex;  // for parking only
  CondVar wake;
  std::vector<std::thread> workers;

  // The thread's own share, then what is left of the others'.
  void WorkOn(size_t thread) {
    for (size_t i = 0; i < shares.size(); i++) {
      Share& share = shares[(thread + i) % shares.size()];
      // A look costs less than taking what is not there: the line stays shared.
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const size_t item = share.next.fetch_add(1, std::memory_order_relaxed);
        if (item >= share.end) break;
        job.thunk(job.body, item, thread);
      }
    }
  }

  // Sequentially consistent, as is the count of parked workers: either the worker that parks sees
  // the new epoch, or the caller that opened it sees the worker parked.
  bool Idle(uint64_t seen) const { return state.load() / kEpoch == seen && !stopping.load(); }

  void AwaitEpochAfter(uint64_t seen) {
    if (SpinUntil([&] { return !Idle(seen); })) return;
    MutexLock lock(mutex);
    parked_workers.fetch_add(1);
    while (Idle(seen)) wake.Wait(mutex);
    parked_workers.fetch_sub(1);
  }

  // Joins the epoch if it is open. Returns its number either way.
  std::pair<uint64_t, bool> TryJoin() {
    uint64_t s = state.load(std::memory_order_relaxed);
    while ((s & kOpen) != 0) {
      if (state.compare_exchange_weak(s, s + kMember, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return {s / kEpoch, true};
      }
    }
    return {s / kEpoch, false};
  }

  void WorkerMain(size_t thread) {
    for (uint64_t seen = 0;;) {
      AwaitEpochAfter(seen);
      if (stopping) return;
      const auto [epoch, joined] = TryJoin();
      seen = epoch;
      if (!joined) continue;
      WorkOn(thread);
      state.fetch_sub(kMember, std::memory_order_release);
    }
  }

  void WakeParked() {
    if (parked_workers.load() == 0) return;
    { MutexLock lock(mutex); }  // orders the wake-up after a worker's last look at `state`
    wake.NotifyAll();
  }
};

ComputePool::ComputePool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ComputePool>> ComputePool::Create(size_t num_threads) {
  if (num_threads == 0 || num_threads > Impl::kMaxThreads) {
    return Status(
        StatusCode::kInvalidArgument,
        fmt::format("{} compute threads: use 1 to {}", num_threads, size_t{Impl::kMaxThreads}));
  }
  std::unique_ptr<ComputePool> pool(new ComputePool(std::make_unique<Impl>()));
  pool->impl_->shares = std::vector<Impl::Share>(num_threads);
  try {
    for (size_t t = 1; t < num_threads; t++) {
      pool->impl_->workers.emplace_back([p = pool->impl_.get(), t] { p->WorkerMain(t); });
    }
  } catch (const std::system_error& error) {
    return Status(StatusCode::kIo,
                  fmt::format("cannot start {} compute threads: {}", num_threads, error.what()));
  }
  return pool;
}

ComputePool::~ComputePool() {
  {
    MutexLock lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.NotifyAll();
  for (std::thread& worker : impl_->workers) worker.join();
}

size_t ComputePool::num_threads() const {
  return impl_->workers.size() + 1;
}

void ComputePool::Run(size_t num_items, Order order, Thunk thunk, const void* body) {
  Impl& p = *impl_;
  if (num_items <= 1 || p.workers.empty()) {
    for (size_t item = 0; item < num_items; item++) thunk(body, item, 0);
    return;
  }
  p.job = {thunk, body};
  const size_t num_shares = order == Order::kShares ? num_threads() : 1;
  for (size_t t = 0; t < num_threads(); t++) {
    p.shares[t].next.store(num_items * std::min(t, num_shares) / num_shares,
                           std::memory_order_relaxed);
    p.shares[t].end = num_items * std::min(t + 1, num_shares) / num_shares;
  }
  p.state.fetch_add(Impl::kEpoch + Impl::kOpen);
  p.WakeParked();
  p.WorkOn(0);
  p.state.fetch_sub(Impl::kOpen, std::memory_order_relaxed);
  const auto all_left = [&p] {
    return (p.state.load(std::memory_order_acquire) & Impl::kMembers) == 0;
  };
  // A member that is not done by then has lost its core to another program: let it have ours.
  while (!SpinUntil(all_left)) std::this_thread::yield();
}

}  // namespace trellis
