// Packed matrix products of each type on each instruction set: multiply-adds per second of one
// thread's own CPU time, so that a busy machine disturbs them little.
//   kernels_bench --benchmark_filter='matmul/avx2/q4_K'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace trellis {
namespace {

// Random bytes are valid weights of every type; their values do not matter for speed.
class Operands {
 public:
  Operands(const KernelTable& kernels, PackedType type, size_t rows, size_t outputs, size_t depth)
      : matrix_{type, outputs, depth, nullptr}, x_(rows * depth), out_(rows * outputs) {
    panels_.resize(matrix_.num_panels() * matrix_.panel_bytes() + 64);
    scratch_.resize(kMatmulScratchBytes + 64);
    std::mt19937 random(1);
    for (std::byte& b : panels_) b = static_cast<std::byte>(random() & 0x3f);  // no NaN scales
    std::normal_distribution<float> normal;
    for (float& v : x_) v = normal(random);
    matrix_.panels = Align(panels_.data());
    const ActivationForm form = FormFor(type);
    QuantizedRows q{.depth = depth,
                    .scale_depth = form == ActivationForm::kPerGroup ? kGroupDepth : kBlockDepth};
    values_.resize(rows * q.value_stride() + 64);
    scales_.resize(2 * rows * q.num_scales());
    sums_.resize(3 * rows * q.group_stride());
    q.values = reinterpret_cast<int8_t*>(Align(reinterpret_cast<std::byte*>(values_.data())));
    q.scales = scales_.data(), q.scaled_sums = scales_.data() + rows * q.num_scales();
    q.group_sums = sums_.data(), q.half_sums = sums_.data() + rows * q.group_stride();
    kernels.matmul.quantize_rows(x_.data(), depth, rows, q);
    view_ = {.f32 = x_.data(), .f32_stride = depth, .per_group = q, .per_block = q};
  }
  void Run(const KernelTable& kernels, size_t rows) {
    kernels.matmul.matmul(matrix_, view_, 0, rows, 0, matrix_.num_panels(), nullptr, out_.data(),
                          matrix_.num_outputs, Align(scratch_.data()));
  }

 private:
  static std::byte* Align(std::byte* p) {
    return p + (64 - reinterpret_cast<uintptr_t>(p) % 64) % 64;
  }
  PackedMatrix matrix_;
  std::vector<float> x_, out_, scales_;
  std::vector<std::byte> panels_, scratch_;
  std::vector<int8_t> values_;
  std::vector<int16_t> sums_;
  Activations view_;
};

void Matmul(benchmark::State& state, const KernelTable* kernels, PackedType type) {
  const auto rows = static_cast<size_t>(state.range(0)),
             outputs = static_cast<size_t>(state.range(1)),
             depth = static_cast<size_t>(state.range(2));
  Operands operands(*kernels, type, rows, outputs, depth);
  for (auto _ : state) {
    operands.Run(*kernels, rows);
    benchmark::ClobberMemory();
  }
  if (rows == 1) {
    const PackedMatrix w{type, outputs, depth, nullptr};
    const auto bytes = static_cast<double>(w.num_panels() * w.panel_bytes());
    state.counters["B/s"] =
        benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate);
  }
  const auto macs = static_cast<double>(rows * outputs * depth);
  state.counters["MAC/s"] = benchmark::Counter(macs, benchmark::Counter::kIsIterationInvariantRate);
}

const int kRegistered = [] {
  for (const KernelTable* kernels : AvailableKernels()) {
    for (int t = 0; t <= static_cast<int>(PackedType::kF32); t++) {
      const auto type = static_cast<PackedType>(t);
      const std::string name = fmt::format("matmul/{}/{}", kernels->name, PackedTypeName(type));
      benchmark::RegisterBenchmark(name.c_str(), Matmul, kernels, type)
          ->ArgNames({"rows", "outputs", "depth"})
          ->Args({1, 4096, 1536})   // in the cache
          ->Args({1, 32768, 4096})  // from memory
          ->Args({8, 4096, 1536})
          ->Args({8, 32768, 4096})
          ->Args({256, 1536, 1536})
          ->Args({256, 512, 8960});
    }
  }
  return 0;
}();

}  // namespace
}  // namespace trellis
