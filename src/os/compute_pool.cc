#include "os/compute_pool.h"

#include <fmt/format.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/check.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace trellis {
namespace {

// About 50 us of spinning before a thread parks: longer than the gaps between the matmuls of one
// step, shorter than anything a person or a battery would notice.
constexpr int kSpins = 4000;

void Relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

// A run is an epoch. The caller publishes the job, bumps `epoch`, works too, and waits until every
// worker has left the epoch; so no worker can still look at a job whose caller has returned.
struct ComputePool::Impl {
  struct Job {
    size_t num_items = 0;
    Thunk thunk = nullptr;
    const void* body = nullptr;
  };

  Job job;
  alignas(64) std::atomic<uint64_t> epoch{0};
  alignas(64) std::atomic<size_t> next_item{0};
  alignas(64) std::atomic<size_t> busy_workers{0};
  alignas(64) std::atomic<int> parked_workers{0};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  void WorkOn(size_t thread) {
    for (;;) {
      const size_t item = next_item.fetch_add(1, std::memory_order_relaxed);
      if (item >= job.num_items) return;
      job.thunk(job.body, item, thread);
    }
  }

  // Returns the epoch that follows `seen`, or `seen` when the pool is stopping.
  uint64_t AwaitEpoch(uint64_t seen) {
    for (int spin = 0; spin < kSpins; spin++) {
      const uint64_t now = epoch.load(std::memory_order_acquire);
      if (now != seen) return now;
      Relax();
    }
    std::unique_lock lock(mutex);
    parked_workers.fetch_add(1, std::memory_order_seq_cst);
    wake.wait(lock,
              [&] { return epoch.load(std::memory_order_seq_cst) != seen || stopping.load(); });
    parked_workers.fetch_sub(1, std::memory_order_relaxed);
    return epoch.load(std::memory_order_acquire);
  }

  void WorkerMain(size_t thread) {
    uint64_t seen = 0;
    for (;;) {
      const uint64_t now = AwaitEpoch(seen);
      if (now == seen) return;  // stopping
      seen = now;
      WorkOn(thread);
      busy_workers.fetch_sub(1, std::memory_order_release);
    }
  }

  void WakeParked() {
    // The lock orders the wake-up after a worker's last look at `epoch`.
    if (parked_workers.load(std::memory_order_seq_cst) == 0) return;
    { std::lock_guard lock(mutex); }
    wake.notify_all();
  }
};

ComputePool::ComputePool(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<ComputePool>> ComputePool::Create(size_t num_threads) {
  if (num_threads == 0)
    return Status(StatusCode::kInvalidArgument, "a compute pool needs a thread");
  auto impl = std::make_unique<Impl>();
  std::unique_ptr<ComputePool> pool(new ComputePool(std::move(impl)));
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
    std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
  }
  impl_->wake.notify_all();
  // A spinning worker parks, sees `stopping` and leaves.
  for (std::thread& worker : impl_->workers) worker.join();
}

size_t ComputePool::num_threads() const {
  return impl_->workers.size() + 1;
}

void ComputePool::Run(size_t num_items, Thunk thunk, const void* body) {
  Impl& p = *impl_;
  if (num_items == 0) return;
  if (num_items == 1 || p.workers.empty()) {
    for (size_t item = 0; item < num_items; item++) thunk(body, item, 0);
    return;
  }
  p.job = {num_items, thunk, body};
  p.next_item.store(0, std::memory_order_relaxed);
  p.busy_workers.store(p.workers.size(), std::memory_order_relaxed);
  p.epoch.fetch_add(1, std::memory_order_seq_cst);
  p.WakeParked();
  p.WorkOn(0);
  for (int spin = 0; p.busy_workers.load(std::memory_order_acquire) != 0; spin++) {
    if (spin < kSpins) {
      Relax();
    } else {
      std::this_thread::yield();  // another program has our worker's core
    }
  }
}

}  // namespace trellis
