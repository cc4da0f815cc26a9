// This machine's ceilings, one thread and all: what the other benches' figures are shares of.
#include "kernels/ceilings.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

namespace trellis {
namespace {

constexpr size_t kReadBytes = size_t{128} << 20;  // of each thread: beyond any cache's share

void Arithmetics(benchmark::State& state, const ArithmeticProbe& probe) {
  constexpr size_t kRounds = 10000;
  for (auto _ : state) probe.run(kRounds);
  state.counters["MAC/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(kRounds * probe.macs_per_round),
      benchmark::Counter::kIsRate);
}

void Reading(benchmark::State& state) {
  constexpr size_t kHugePage = size_t{2} << 20;
  const std::unique_ptr<void, void (*)(void*)> memory(std::aligned_alloc(kHugePage, kReadBytes),
                                                      std::free);
  madvise(memory.get(), kReadBytes, MADV_HUGEPAGE);  // as the program's weights
  std::memset(memory.get(), 1, kReadBytes);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ReadOnce(static_cast<const std::byte*>(memory.get()), kReadBytes));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kReadBytes));
}

[[maybe_unused]] const bool kRegistered = [] {
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  const auto add = [all](const std::string& name, auto&&... work) {
    auto* bench = benchmark::RegisterBenchmark(name.c_str(), work...)->UseRealTime()->Threads(1);
    if (all > 1) bench->Threads(all);
  };
  for (const ArithmeticProbe& probe : AvailableProbes()) {
    add(std::string("BM_Ceiling/") + probe.isa + "/" + ArithmeticName(probe.arithmetic) + "/" +
            probe.instructions,
        Arithmetics, probe);
  }
  add("BM_Ceiling/read", Reading);
  return true;
}();

}  // namespace
}  // namespace trellis
