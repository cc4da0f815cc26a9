// What a fork-join costs: nothing to do, per call, while the workers still spin.
#include <benchmark/benchmark.h>

#include <thread>

#include "os/compute_pool.h"

namespace trellis {
namespace {

void BM_ParallelFor(benchmark::State& state) {
  auto pool = ComputePool::Create(static_cast<size_t>(state.range(0))).value();
  const auto items = static_cast<size_t>(state.range(1));
  for (auto _ : state) {
    pool->ParallelFor(items, [](size_t item, size_t) { benchmark::DoNotOptimize(item); });
  }
}
BENCHMARK(BM_ParallelFor)->ArgsProduct({{1, 2, 4}, {2, 16, 128}})->ArgNames({"threads", "items"});

// After a pause in which the workers have parked.
void BM_ParallelForParked(benchmark::State& state) {
  auto pool = ComputePool::Create(2).value();
  for (auto _ : state) {
    state.PauseTiming();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    state.ResumeTiming();
    pool->ParallelFor(2, [](size_t item, size_t) { benchmark::DoNotOptimize(item); });
  }
}
BENCHMARK(BM_ParallelForParked)->Iterations(200);

}  // namespace
}  // namespace trellis
