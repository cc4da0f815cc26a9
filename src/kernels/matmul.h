// Matrix multiplication by packed weights: out[r, o] = sum_k x[r, k] * w[o, k].
//
// PACKING. A weight matrix [num_outputs, depth] is stored in panels of kPanelOutputs output rows,
// so that a vector lane is an output; along depth it is cut in groups of 32 and blocks of
// kBlockDepth, the last one possibly shorter (a multiple of 32). num_outputs is padded to a whole
// panel with zero weights. Four consecutive depths of one output are four neighbouring bytes (what
// a dot-product instruction eats), and decoding streams one panel from front to back. A packed type
// has the name of the GGUF type that it holds without loss, in the same number of bytes, but for
// 3 % more in kQ4_K and kQ5_K. Byte layouts: packed_format.h.
//
//   kQ4_0, kQ5_0, kQ8_0   d * (q - 8 | 16 | 128), f16 d per 32 depths
//   kQ4_1, kQ5_1          d * q + m, f16 d and m per 32 depths
//   kQ4_K, kQ5_K          6-bit scale and min per 32 depths under f16 d, dmin per block
//   kQ6_K                 8-bit scale per 16 depths under f16 d per block; Q3_K too
//   kF16, kBF16, kF32     as in the file
//   MXFP4 (within f16's range) and IQ4_NL are kQ8_0 without loss; every other GGUF type is
//   quantised again to it.
//
// ACTIVATIONS are quantised once per row and shared by every matmul that reads the row: signed 8
// bit, never across rows, one f32 scale for as many depths as the weights have under theirs: 32
// for the types with f16 scales per 32, kBlockDepth for K-types (as llama.cpp, so that neither
// side of a product is coarser than its file was made for). Float weights read f32 rows instead.
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

// In the order of FormFor().
enum class PackedType : uint8_t {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kF16,
  kBF16,
  kF32
};

const char* PackedTypeName(PackedType type);

// What a type's kernels read of a row.
enum class ActivationForm : uint8_t {
  kPerGroup,  // quantised, a scale per kGroupDepth
  kPerBlock,  // quantised, a scale per kBlockDepth
  kF32,
};
constexpr ActivationForm FormFor(PackedType type) {
  if (type <= PackedType::kQ8_0) return ActivationForm::kPerGroup;
  return type <= PackedType::kQ6_K ? ActivationForm::kPerBlock : ActivationForm::kF32;
}

// Bytes of one panel of `depth` depths; they are a multiple of 64.
size_t PanelBytes(PackedType type, size_t depth);

// A view of packed weights; `panels` is 64-byte aligned.
struct PackedMatrix {
  PackedType type = PackedType::kF32;
  size_t num_outputs = 0;
  size_t depth = 0;
  const std::byte* panels = nullptr;  // [PanelsFor(num_outputs)] x PanelBytes(type, depth)

  size_t num_panels() const { return PanelsFor(num_outputs); }
  size_t panel_bytes() const { return PanelBytes(type, depth); }
  // `num` panels from `begin` on.
  PackedMatrix Panels(size_t begin, size_t num) const {
    const size_t left = num_outputs - begin * kPanelOutputs, outputs = num * kPanelOutputs;
    return {type, outputs < left ? outputs : left, depth, panels + begin * panel_bytes()};
  }
};

// A view of quantised activation rows, written by MatmulKernels::quantize_rows. Sums are of
// `values`.
struct QuantizedRows {
  size_t depth = 0;
  size_t scale_depth = kBlockDepth;  // kBlockDepth or kGroupDepth
  int8_t* values = nullptr;          // [rows, value_stride()]    zero beyond depth
  float* scales = nullptr;           // [rows, num_scales()]      x ~= values * scale
  int16_t* group_sums = nullptr;     // [rows, group_stride()]    of 32 depths; zero beyond depth
  // scale_depth == kGroupDepth:
  float* scaled_sums = nullptr;  // [rows, num_scales()]      scale * sum
  // scale_depth == kBlockDepth:
  int16_t* half_sums = nullptr;  // [rows, 2 * group_stride()] of 16 depths; zero beyond depth

  size_t value_stride() const { return (depth + 63) / 64 * 64; }
  size_t group_stride() const { return BlocksFor(depth) * (kBlockDepth / kGroupDepth); }
  size_t num_scales() const { return (depth + scale_depth - 1) / scale_depth; }
  // The rows from `row` on.
  QuantizedRows From(size_t row) const;
  // Block `block` of a single row, as a row of its own.
  QuantizedRows Block(size_t block) const;
};

// The same rows in every form. Those that no weight reads may be null.
struct Activations {
  const float* f32 = nullptr;  // [rows, f32_stride]
  size_t f32_stride = 0;
  QuantizedRows per_group, per_block;

  const QuantizedRows& quantized(PackedType type) const {
    return FormFor(type) == ActivationForm::kPerGroup ? per_group : per_block;
  }
  // The rows from `row` on.
  Activations From(size_t row) const {
    return {f32 + row * f32_stride, f32_stride, per_group.From(row), per_block.From(row)};
  }
};

struct MatmulKernels {
  // Rows for a product that is made by blocks of kBlockDepth outputs to stay in the cache: as many
  // as pay for what a panel costs whatever the rows; whole tiles.
  size_t block_rows = 48;

  // Quantises rows [0, num_rows) of x [num_rows, stride] f32 into `out`. Rows are independent.
  // NaN and infinity in x give unspecified values in their own row only.
  void (*quantize_rows)(const float* x, size_t stride, size_t num_rows, const QuantizedRows& out);

  // out[r * out_stride + o] = row r of x times output o of w (+ bias[o] when bias is not null), for
  // rows [row_begin, row_end) and the outputs of panels [panel_begin, panel_end); outputs beyond
  // w.num_outputs are not written. `scratch` is the calling thread's own, 64-byte aligned,
  // kMatmulScratchBytes long.
  void (*matmul)(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
                 size_t panel_begin, size_t panel_end, const float* bias, float* out,
                 size_t out_stride, std::byte* scratch);
};

// Room for one unpacked block with its scales, and for the sums of kScratchRows rows.
inline constexpr size_t kScratchRows = 256;
inline constexpr size_t kUnpackedBlockBytes = 3 * kBlockDepth * kPanelOutputs;
inline constexpr size_t kMatmulScratchBytes =
    kUnpackedBlockBytes + kScratchRows * kPanelOutputs * sizeof(float);

}  // namespace trellis
