// ComputePool: fork-join over a fixed set of threads. Spins briefly, then parks: no CPU when idle.
//
// Threads are not pinned: the system places them within the process's affinity mask and control
// group. On a machine of its own a pinned pool is no faster, but a thread whose core another
// program wants cannot leave it, and the others wait: on two cores with a busy loop on one of them,
// a fork-join of 16 items of 17 us took 1.0 to 2.9 times as long pinned in four pairs of
// measurements, and less in a fifth.
#pragma once

#include <cstddef>
#include <memory>

#include "base/status.h"

namespace trellis {

class ComputePool {
 public:
  // The calling thread is one of the `num_threads`. ERRORS: kInvalidArgument (0), kIo.
  static Result<std::unique_ptr<ComputePool>> Create(size_t num_threads);
  ~ComputePool();

  size_t num_threads() const;

  enum class Order {
    // Each thread has its share, neighbouring items that are the same from call to call, whose data
    // its cache may hold; who is done with its own takes items of the others' one by one.
    kShares,
    // The next item to whoever is free: for items of unequal size, the largest first.
    kOneByOne,
  };

  // Runs body(item, thread) for every item in [0, num_items), thread in [0, num_threads()); returns
  // when all are done. Not reentrant; one caller at a time. `body` must not throw.
  template <typename Body>
  void ParallelFor(size_t num_items, const Body& body, Order order = Order::kShares) {
    Run(
        num_items, order,
        [](const void* b, size_t item, size_t thread) {
          (*static_cast<const Body*>(b))(item, thread);
        },
        &body);
  }

 private:
  using Thunk = void (*)(const void* body, size_t item, size_t thread);
  void Run(size_t num_items, Order order, Thunk thunk, const void* body);
  struct Impl;
  explicit ComputePool(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
