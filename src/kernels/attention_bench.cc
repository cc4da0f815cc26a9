// Attention of one thread: new rows over a context, per instruction set. GMAC/s counts what causal
// attention needs: one multiply-add per query, seen key and dimension, for scores and for values.
#include "kernels/attention.h"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace trellis {
namespace {

struct Shape {
  const char* model;
  size_t num_kv_heads, group, head_dim, window;
};
constexpr Shape kShapes[] = {{"SmolLM2-135M", 3, 3, 64, 0},
                             {"Qwen2.5-0.5B", 2, 7, 64, 0},
                             {"Qwen2.5-1.5B", 2, 6, 128, 0},
                             {"Gemma3-270M", 1, 4, 256, 0},
                             {"Gemma3-270M-window", 1, 4, 256, 512}};

// One layer of a sequence of `length` positions, all ones and halves: timing needs no more.
struct Sequence {
  Sequence(const Shape& shape, size_t length)
      : layout{1, shape.num_kv_heads, shape.head_dim},
        storage(PagesFor(length) * layout.page_bytes() / sizeof(uint16_t) + 32, 0x3800) {
    auto* first = reinterpret_cast<std::byte*>(storage.data());
    first += (64 - reinterpret_cast<uintptr_t>(first) % 64) % 64;
    for (size_t i = 0; i < PagesFor(length); i++) pages.push_back(first + i * layout.page_bytes());
  }
  PageLayout layout;
  std::vector<uint16_t> storage;
  std::vector<std::byte*> pages;
};

void Attend(benchmark::State& state, const KernelTable* kernels, const Shape& shape, size_t depth,
            size_t rows) {
  const Sequence sequence(shape, depth + rows);
  const size_t width = shape.num_kv_heads * shape.group * shape.head_dim;
  std::vector<float> q(rows * width, 0.125f), out(rows * width);
  std::vector<std::byte> scratch(AttentionScratchBytes(shape.head_dim) + 64);
  std::byte* aligned =
      scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
  const AttentionTask task{.kv = {&sequence.layout, sequence.pages.data()},
                           .layer = 0,
                           .first_position = depth,
                           .num_rows = rows,
                           .window = shape.window,
                           .num_heads = shape.num_kv_heads * shape.group,
                           .scale = 1 / std::sqrt(static_cast<float>(shape.head_dim)),
                           .q = q.data(),
                           .q_stride = width,
                           .out = out.data(),
                           .out_stride = width};
  for (auto _ : state) {
    for (size_t h = 0; h < shape.num_kv_heads; h++) {
      kernels->attention.attend(task, h, 0, rows, aligned);
    }
    benchmark::DoNotOptimize(out.data());
  }
  double seen = 0;
  for (size_t row = 0; row < rows; row++) {
    const size_t all = depth + row + 1;
    seen += static_cast<double>(shape.window == 0 ? all : std::min(all, shape.window));
  }
  const double macs = 2 * seen * static_cast<double>(width);
  const auto iterations = static_cast<double>(state.iterations());
  state.counters["GMAC/s"] =
      benchmark::Counter(macs * iterations / 1e9, benchmark::Counter::kIsRate);
  if (rows == 1) {
    const double bytes = 2 * seen * static_cast<double>(shape.num_kv_heads * shape.head_dim) * 2;
    state.counters["GB/s"] =
        benchmark::Counter(bytes * iterations / 1e9, benchmark::Counter::kIsRate);
  }
}

void WriteRows(benchmark::State& state, const KernelTable* kernels, const Shape& shape) {
  const size_t rows = 512, width = shape.num_kv_heads * shape.head_dim;
  const Sequence sequence(shape, rows);
  std::vector<float> k(rows * width, 0.5f), v(rows * width, 0.25f);
  const PagedKv kv{&sequence.layout, sequence.pages.data()};
  for (auto _ : state) {
    kernels->attention.write_rows(kv, 0, 0, rows, k.data(), v.data(), width);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(2 * rows * width));
}

// What the machine can do: independent f32 multiply-adds on 12 accumulators, as 512-bit vectors
// where the compiler may use them (it splits them where not).
void RegisterAll() {
  for (const KernelTable* kernels : AvailableKernels()) {
    for (const Shape& shape : kShapes) {
      const std::string name = std::string(kernels->name) + "/" + shape.model;
      for (const auto& [depth, rows] :
           {std::pair<size_t, size_t>{0, 512}, {4096, 512}, {4096, 1}}) {
        if (kernels->isa == Isa::kScalar && rows > 1) continue;
        benchmark::RegisterBenchmark(
            ("Attend/" + name + "/depth:" + std::to_string(depth) + "/rows:" + std::to_string(rows))
                .c_str(),
            [=, &shape](benchmark::State& s) { Attend(s, kernels, shape, depth, rows); });
      }
      benchmark::RegisterBenchmark(("WriteRows/" + name).c_str(), [=, &shape](benchmark::State& s) {
        WriteRows(s, kernels, shape);
      });
    }
  }
}

const bool registered = (RegisterAll(), true);

}  // namespace
}  // namespace trellis
