// Matrix multiplication by packed weights: out[r, o] = sum_k x[r, k] * w[o, k].
//
// PACKING. A weight matrix [num_outputs, depth] is stored in panels of kPanelOutputs output rows,
// so that a vector lane is an output; along depth it is cut in blocks of kBlockDepth, the last one
// possibly shorter (a multiple of 32). num_outputs is padded to a whole panel with zero weights.
// Within a block, four consecutive depths of one output are four neighbouring bytes (what a
// dot-product instruction eats). All kinds share the order
//   panel -> block -> [per-output scales of the block][quants: for each quad of depths:
//   kPanelOutputs x 4]
// so decoding streams one panel from front to back. Exact byte layouts: packed_format.h.
//
//   kU4  unsigned 4 bit, 8-bit scale and min per 32 depths under f16 d, dmin per block   Q4_0,
//   Q4_1, Q4_K kU5  the same with a fifth bit plane Q5_0, Q5_1, Q5_K kU6  6 bit, 8-bit scale per 16
//   depths under f16 d per block                            Q6_K, Q3_K kS8  signed 8 bit, f16 scale
//   per 32 depths                          Q8_0 and every other quantised type kF16, kBF16, kF32 as
//   in the file
//
// ACTIVATIONS are quantised once per row and shared by every matmul that reads the row: signed 8
// bit, one f32 scale per kBlockDepth, never across rows. Float weights read the f32 rows instead.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trellis {

inline constexpr size_t kPanelOutputs = 32;
inline constexpr size_t kBlockDepth = 256;
inline constexpr size_t kGroupDepth = 32;  // depth must be a multiple of it

constexpr size_t PanelsFor(size_t num_outputs) {
  return (num_outputs + kPanelOutputs - 1) / kPanelOutputs;
}
constexpr size_t BlocksFor(size_t depth) {
  return (depth + kBlockDepth - 1) / kBlockDepth;
}

enum class PackedType : uint8_t { kU4, kU5, kU6, kS8, kF16, kBF16, kF32 };

const char* PackedTypeName(PackedType type);
constexpr bool IsQuantized(PackedType type) {
  return type <= PackedType::kS8;
}

// Bytes of one panel of `depth`, a multiple of 64.
size_t PanelBytes(PackedType type, size_t depth);

// A view of packed weights; `panels` is 64-byte aligned.
struct PackedMatrix {
  PackedType type = PackedType::kF32;
  size_t num_outputs = 0;
  size_t depth = 0;
  const std::byte* panels = nullptr;  // [PanelsFor(num_outputs)] x PanelBytes(type, depth)

  size_t num_panels() const { return PanelsFor(num_outputs); }
  size_t panel_bytes() const { return PanelBytes(type, depth); }
};

// A view of quantised activation rows, written by MatmulKernels::quantize_rows. Rows are 64-byte
// aligned in `values`.
struct QuantizedRows {
  size_t depth = 0;
  int8_t* values = nullptr;       // [rows, value_stride()]  zero beyond depth
  float* scales = nullptr;        // [rows, BlocksFor(depth)]    x ~= values * scale
  int16_t* sums = nullptr;        // [rows, sum_stride()]          sum of the values of 16 depths
  int32_t* block_sums = nullptr;  // [rows, BlocksFor(depth)]    sum of the values of a block

  size_t value_stride() const { return (depth + 63) / 64 * 64; }
  size_t sum_stride() const { return BlocksFor(depth) * (kBlockDepth / 16); }
};

// The same rows in both forms. `f32` may be null when every weight that reads them is quantised,
// `quantized.values` when none is.
struct Activations {
  const float* f32 = nullptr;  // [rows, f32_stride]
  size_t f32_stride = 0;
  QuantizedRows quantized;
};

struct MatmulKernels {
  // Quantises rows [0, num_rows) of x [num_rows, stride] f32 into `out`. Rows are independent.
  // NaN and infinity in x give unspecified values in their own row only.
  void (*quantize_rows)(const float* x, size_t stride, size_t num_rows, const QuantizedRows& out);

  // out[r * out_stride + o] = row r of x times output o of w (+ bias[o] when bias is not null), for
  // rows [row_begin, row_end) and the outputs of panels [panel_begin, panel_end); outputs beyond
  // w.num_outputs are not written. `scratch` is the calling thread's own, 64-byte aligned,
  // MatmulScratchBytes(w.depth) long.
  void (*matmul)(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
                 size_t panel_begin, size_t panel_end, const float* bias, float* out,
                 size_t out_stride, std::byte* scratch);
};

// Room for one unpacked panel.
constexpr size_t MatmulScratchBytes(size_t depth) {
  return (depth + kBlockDepth) * kPanelOutputs * 2 + 4096;
}

}  // namespace trellis
