// Attention of one thread: new rows over a context, per instruction set. GMAC/s counts what causal
// attention needs: one multiply-add per query, seen key and dimension, for scores and for values.
#include "kernels/attention.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace trellis {
namespace {

struct Shape {
  const char* model;
  size_t num_kv_heads, group, head_dim, window;
};
constexpr Shape kShapes[] = {
    {"SmolLM2-135M", 3, 3, 64, 0},  {"Qwen2.5-0.5B", 2, 7, 64, 0},
    {"Qwen2.5-1.5B", 2, 6, 128, 0}, {"head-dim-80", 4, 8, 80, 0},
    {"Gemma3-270M", 1, 4, 256, 0},  {"Gemma3-270M-window", 1, 4, 256, 512}};

// Pages, all halves of 0.5, or integers of 128 (or a byte's 64) and scales of 1 / 256: timing needs
// no more. As in a pool of many layers, no two pages of a sequence are neighbours.
class Pages {
 public:
  Pages(const Shape& shape, KvType type, size_t num)
      : layout_{kLayers, shape.num_kv_heads, shape.head_dim, type},
        storage_(static_cast<std::byte*>(std::aligned_alloc(kHugePage, Bytes(num))), &std::free),
        next_(storage_.get()) {
    madvise(storage_.get(), Bytes(num), MADV_HUGEPAGE);  // as a pool
    const uint16_t filling = type == KvType::kI16 ? 128 : type == KvType::kQ8_0 ? 0xc0c0 : 0x3800;
    std::fill_n(reinterpret_cast<uint16_t*>(storage_.get()), Bytes(num) / 2, filling);
    if (!layout_.has_scales()) return;
    for (size_t head = 0; head < num * kLayers * shape.num_kv_heads; head++) {
      std::byte* scales = storage_.get() + head * layout_.head_bytes() + layout_.scale_offset(0, 0);
      std::fill_n(reinterpret_cast<float*>(scales), 2 * kPageTokens, 1.0f / 256);
    }
  }
  const PageLayout& layout() const { return layout_; }
  void Take(size_t num, std::vector<std::byte*>* to) {
    for (; num > 0; num--, next_ += layout_.page_bytes()) to->push_back(next_);
  }

 private:
  static constexpr size_t kLayers = 24;
  PageLayout layout_;
  static constexpr size_t kHugePage = size_t{2} << 20;
  size_t Bytes(size_t num) const {
    return (num * layout_.page_bytes() + kHugePage - 1) / kHugePage * kHugePage;
  }
  std::unique_ptr<std::byte, decltype(&std::free)> storage_;
  std::byte* next_;
};

struct Scratch {
  explicit Scratch(size_t head_dim) : bytes(AttentionScratchBytes(head_dim) + 64) {}
  std::byte* get() {
    return bytes.data() + (64 - reinterpret_cast<uintptr_t>(bytes.data()) % 64) % 64;
  }
  std::vector<std::byte> bytes;
};

// Runs `rows`, whose q and out are still to be set, and counts. `bytes`: of the positions read.
void Run(benchmark::State& state, const KernelTable* kernels, const Shape& shape,
         const PageLayout& layout, std::vector<AttentionRow> rows, size_t positions_read) {
  const size_t width = shape.num_kv_heads * shape.group * shape.head_dim;
  std::vector<float> q(rows.size() * width, 0.125f), out(rows.size() * width);
  Scratch scratch(shape.head_dim);
  double seen = 0;
  for (size_t r = 0; r < rows.size(); r++) {
    rows[r].q = q.data() + r * width, rows[r].out = out.data() + r * width;
    const size_t all = rows[r].position + 1;
    seen += static_cast<double>(shape.window == 0 ? all : std::min(all, shape.window));
  }
  // Layer after layer, as a step has them: what is read once a step comes from memory.
  AttentionTask task{.layout = &layout,
                     .window = shape.window,
                     .num_heads = shape.num_kv_heads * shape.group,
                     .scale = 1 / std::sqrt(static_cast<float>(shape.head_dim)),
                     .rows = rows.data()};
  for (auto _ : state) {
    task.layer = (task.layer + 1) % layout.num_layers;
    for (size_t h = 0; h < shape.num_kv_heads; h++) {
      kernels->attention.attend(task, h, 0, rows.size(), scratch.get());
    }
    benchmark::DoNotOptimize(out.data());
  }
  const auto rate = [&](double n) {
    return benchmark::Counter(n * static_cast<double>(state.iterations()) / 1e9,
                              benchmark::Counter::kIsRate);
  };
  state.counters["GMAC/s"] = rate(2 * seen * static_cast<double>(width));
  if (positions_read > 0) {
    const size_t bytes = layout.page_bytes() / layout.num_layers / kPageTokens;
    state.counters["GB/s"] = rate(static_cast<double>(positions_read * bytes));
  }
}

// New rows of one sequence.
void Attend(benchmark::State& state, const KernelTable* kernels, const Shape& shape, KvType type,
            size_t depth, size_t num_rows) {
  Pages storage(shape, type, PagesFor(depth + num_rows));
  std::vector<std::byte*> pages;
  storage.Take(PagesFor(depth + num_rows), &pages);
  std::vector<AttentionRow> rows;
  for (size_t r = 0; r < num_rows; r++)
    rows.push_back({.pages = pages.data(), .position = depth + r});
  const size_t seen = shape.window == 0 ? depth + 1 : std::min(depth + 1, shape.window);
  Run(state, kernels, shape, storage.layout(), rows, num_rows == 1 ? seen : 0);
}

// One row each of several sequences, `own` tokens behind a trunk that they share or have each.
enum class Trunk { kShared, kOwn };
void Decode(benchmark::State& state, const KernelTable* kernels, const Shape& shape, KvType type,
            Trunk trunk) {
  constexpr size_t kSequences = 8, kTrunk = 2048, kOwn = 32;
  Pages storage(shape, type, kSequences * PagesFor(kTrunk + kOwn));
  std::vector<std::vector<std::byte*>> pages(kSequences);
  std::vector<AttentionRow> rows;
  for (auto& own : pages) {
    if (trunk == Trunk::kShared && &own != pages.data()) {
      own.assign(pages[0].begin(), pages[0].begin() + kTrunk / kPageTokens);
    } else {
      storage.Take(kTrunk / kPageTokens, &own);
    }
    storage.Take(kOwn / kPageTokens, &own);
    rows.push_back({.pages = own.data(), .position = kTrunk + kOwn - 1});
  }
  const size_t trunks = trunk == Trunk::kShared ? 1 : kSequences;
  Run(state, kernels, shape, storage.layout(), rows, trunks * kTrunk + kSequences * kOwn);
}

void WriteRows(benchmark::State& state, const KernelTable* kernels, const Shape& shape,
               KvType type) {
  const size_t rows = 512, width = shape.num_kv_heads * shape.head_dim;
  Pages storage(shape, type, PagesFor(rows));
  std::vector<std::byte*> pages;
  storage.Take(PagesFor(rows), &pages);
  std::vector<float> k(rows * width, 0.5f), v(rows * width, 0.25f);
  const PagedKv kv{&storage.layout(), pages.data()};
  for (auto _ : state) {
    kernels->attention.write_rows(kv, 0, 0, rows, k.data(), v.data(), width);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(2 * rows * width));
}

void Register(const KernelTable* kernels, const Shape& shape, KvType type,
              const std::string& name) {
  for (const auto& [depth, rows] :
       {std::pair<size_t, size_t>{0, 512}, {4096, 512}, {4096, 32}, {4096, 1}}) {
    if (kernels->isa == Isa::kScalar && rows > 1) continue;
    benchmark::RegisterBenchmark(
        ("Attend/" + name + "/depth:" + std::to_string(depth) + "/rows:" + std::to_string(rows))
            .c_str(),
        [=, &shape](benchmark::State& s) { Attend(s, kernels, shape, type, depth, rows); });
  }
  for (const Trunk trunk : {Trunk::kShared, Trunk::kOwn}) {
    benchmark::RegisterBenchmark(
        ("Decode8/" + name + (trunk == Trunk::kShared ? "/shared" : "/unshared")).c_str(),
        [=, &shape](benchmark::State& s) { Decode(s, kernels, shape, type, trunk); });
  }
  benchmark::RegisterBenchmark(("WriteRows/" + name).c_str(), [=, &shape](benchmark::State& s) {
    WriteRows(s, kernels, shape, type);
  });
}

void RegisterAll() {
  for (const KernelTable* kernels : AvailableKernels()) {
    for (const Shape& shape : kShapes) {
      for (const auto& [type, label] :
           {std::pair{KvType::kF16, "f16"}, {KvType::kI16, "i16"}, {KvType::kQ8_0, "q8_0"}})
        Register(kernels, shape, type,
                 std::string(kernels->name) + "/" + shape.model + "/" + label);
    }
  }
}

const bool registered = (RegisterAll(), true);

}  // namespace
}  // namespace trellis
