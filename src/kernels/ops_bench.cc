// Row operations of one thread on each instruction set: 64 rows as wide as a model's, which stay in
// the cache. Elements per second.
#include "kernels/ops.h"

#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <vector>

#include "kernels/kernels.h"

namespace trellis {
namespace {

constexpr size_t kRows = 64, kHeadDim = 64;
constexpr float kEpsilon = 1e-5f;

struct Rows {
  explicit Rows(size_t width)
      : width(width), x(kRows * width, 0.5f), y(kRows * width, 0.25f), out(kRows * width) {}
  size_t width;
  std::vector<float> x, y, out;
};

using Operation = void (*)(const OpKernels& ops, Rows& r);

void RmsNorm(const OpKernels& ops, Rows& r) {
  ops.rms_norm(r.x.data(), r.width, r.y.data(), kEpsilon, r.width, kRows, r.out.data(), r.width);
}
// Turns of a quarter: as often as it is repeated, numbers stay what they are.
void Rope(const OpKernels& ops, Rows& r) {
  static const std::vector<float> kZeros(kRows * kHeadDim / 2, 0.0f),
      kOnes(kRows * kHeadDim / 2, 1.0f);
  ops.rope(r.out.data(), r.width, kRows, r.width / kHeadDim, kHeadDim, kHeadDim,
           RopePairing::kHalves, kZeros.data(), kOnes.data());
}
void SiluMul(const OpKernels& ops, Rows& r) {
  ops.silu_mul(r.x.data(), r.y.data(), r.width, r.width, kRows, r.out.data(), r.width);
}
void GeluMul(const OpKernels& ops, Rows& r) {
  ops.gelu_mul(r.x.data(), r.y.data(), r.width, r.width, kRows, r.out.data(), r.width);
}
void Add(const OpKernels& ops, Rows& r) {
  ops.add(r.out.data(), r.x.data(), kRows * r.width);
}

// Quantisation is with the matmuls (matmul.h), whose activations it makes.
void Quantize(benchmark::State& state, const KernelTable* kernels, size_t scale_depth) {
  const Rows rows(static_cast<size_t>(state.range(0)));
  QuantizedRows q{.depth = rows.width, .scale_depth = scale_depth};
  std::vector<int8_t> values(kRows * q.value_stride());
  std::vector<float> scales(kRows * q.num_scales()), scaled_sums(scales.size());
  std::vector<int16_t> group_sums(kRows * q.group_stride()), half_sums(2 * group_sums.size());
  q.values = values.data(), q.scales = scales.data(), q.group_sums = group_sums.data();
  q.scaled_sums = scaled_sums.data(), q.half_sums = half_sums.data();
  for (auto _ : state) {
    kernels->matmul.quantize_rows(rows.x.data(), rows.width, kRows, q);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kRows * rows.width));
}

void Run(benchmark::State& state, const KernelTable* kernels, Operation operation) {
  Rows rows(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    operation(kernels->ops, rows);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(kRows * rows.width));
}

const bool kRegistered = [] {
  const std::pair<const char*, Operation> operations[] = {{"rms_norm", RmsNorm},
                                                          {"rope", Rope},
                                                          {"silu_mul", SiluMul},
                                                          {"gelu_mul", GeluMul},
                                                          {"add", Add}};
  for (const KernelTable* kernels : AvailableKernels()) {
    const auto add = [&](const std::string& name, auto... arguments) {
      benchmark::RegisterBenchmark(fmt::format("ops/{}/{}", kernels->name, name).c_str(),
                                   arguments...)
          ->ArgName("width")
          ->Arg(576)
          ->Arg(8960);
    };
    for (const auto& [name, operation] : operations) add(name, Run, kernels, operation);
    add("quantize/per_group", Quantize, kernels, kGroupDepth);
    add("quantize/per_block", Quantize, kernels, kBlockDepth);
  }
  return true;
}();

}  // namespace
}  // namespace trellis
