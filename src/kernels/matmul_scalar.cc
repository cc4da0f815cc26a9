// The oracle: the arithmetic of every quantised kernel, one number at a time. Each instruction set
// gives its bits.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"
#include "kernels/packed_read.h"

namespace trellis {
namespace {

using namespace packed;

// `n` values (at most kBlockDepth) under one scale; returns their sum.
int QuantizeValues(const float* x, size_t n, int8_t* values, float* scale) {
  float amax = 0;
  for (size_t k = 0; k < n; k++) amax = std::max(amax, std::fabs(x[k]));
  const float inverse = QuantizationInverse(amax);
  int sum = 0;
  for (size_t k = 0; k < n; k++) {
    const float q = std::nearbyint(x[k] * inverse);
    values[k] = static_cast<int8_t>(q >= -127.0f ? (q <= 127.0f ? q : 127.0f) : -127.0f);
    sum += values[k];
  }
  *scale = amax / 127.0f;
  return sum;
}

void SumValues(const int8_t* values, size_t num_sums, size_t depth, int16_t* sums) {
  for (size_t i = 0; i < num_sums; i++) {
    int sum = 0;
    for (size_t k = 0; k < depth; k++) sum += values[i * depth + k];
    sums[i] = static_cast<int16_t>(sum);
  }
}

void QuantizeRows(const float* x, size_t stride, size_t num_rows, const QuantizedRows& out) {
  for (size_t r = 0; r < num_rows; r++) {
    const QuantizedRows row = out.From(r);
    std::fill(row.values + out.depth, row.values + out.value_stride(), int8_t{0});
    for (size_t i = 0; i < out.num_scales(); i++) {
      const size_t begin = i * out.scale_depth, n = std::min(out.scale_depth, out.depth - begin);
      const int sum = QuantizeValues(x + r * stride + begin, n, row.values + begin, row.scales + i);
      if (out.scale_depth == kGroupDepth)
        row.scaled_sums[i] = row.scales[i] * static_cast<float>(sum);
    }
    const size_t groups = out.depth / kGroupDepth;
    std::fill(row.group_sums + groups, row.group_sums + out.group_stride(), int16_t{0});
    SumValues(row.values, groups, kGroupDepth, row.group_sums);
    if (out.scale_depth == kGroupDepth) continue;
    std::fill(row.half_sums + 2 * groups, row.half_sums + 2 * out.group_stride(), int16_t{0});
    SumValues(row.values, 2 * groups, kGroupDepth / 2, row.half_sums);
  }
}

// Each of these adds one row's contribution of one group or block to one output.

float AddGroup(const std::byte* group, PackedType type, size_t o, const int8_t* a, float scale,
               float scaled_sum, float out) {
  int32_t sum = 0;
  for (size_t k = 0; k < kGroupDepth; k++) {
    int q;
    if (type == PackedType::kQ8_0) {
      q = static_cast<int>(group[kHalfRow + k / 4 * kByteQuadBytes + 4 * o + k % 4]);
    } else {
      q = Nibble(group + GroupQuantOffset(type), k, o);
      if (HasBit4(type)) q |= Bit4(group + GroupBit4Offset(type), k, o);
    }
    sum += (HasGroupMin(type) ? q : q - ZeroPoint(type)) * a[k];
  }
  out = std::fma(static_cast<float>(sum), HalfAt(group, o) * scale, out);
  return HasGroupMin(type) ? std::fma(HalfAt(group + kHalfRow, o), scaled_sum, out) : out;
}

struct Affine {
  int sc, m, q;
};
Affine AffineAt(const std::byte* block, PackedType type, size_t groups, size_t k, size_t o) {
  const size_t at = k / kGroupDepth * kPanelOutputs + o;
  Affine w{.sc = static_cast<int>(block[ScOffset() + at]),
           .m = static_cast<int>(block[MinOffset(groups) + at]),
           .q = Nibble(block + NibbleOffset(groups), k, o)};
  if (HasBit4(type)) w.q |= Bit4(block + Bit4Offset(groups), k, o);
  return w;
}

float AddAffineBlock(const std::byte* block, PackedType type, size_t groups, size_t o,
                     const int8_t* a, float scale, float out) {
  int32_t sum = 0, min_sum = 0;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const Affine w = AffineAt(block, type, groups, k, o);
    sum += w.sc * w.q * a[k];
    min_sum += w.m * a[k];
  }
  out = std::fma(static_cast<float>(sum), HalfAt(block, o) * scale, out);
  return std::fma(-static_cast<float>(min_sum), HalfAt(block + DminOffset(), o) * scale, out);
}

float AddSixBitBlock(const std::byte* block, size_t groups, size_t o, const int8_t* a, float scale,
                     float out) {
  int32_t sum = 0;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const int high = static_cast<int>(
        block[Q6HighOffset(groups) + k / 8 * kNibbleQuadBytes + 4 * (o % 16) + k % 4]);
    const int q = Nibble(block + Q6NibbleOffset(groups), k, o) |
                  ((high >> (4 * (k / 4 % 2) + 2 * (o / 16))) & 3) << 4;
    const int sc = static_cast<int8_t>(block[Q6ScOffset() + k / 16 * kPanelOutputs + o]);
    sum += sc * (q - 32) * a[k];
  }
  return std::fma(static_cast<float>(sum), HalfAt(block, o) * scale, out);
}

float AddFloatBlock(const std::byte* block, PackedType type, size_t groups, size_t o,
                    const float* x, float out) {
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const size_t i = k * kPanelOutputs + o;
    float w;
    if (type == PackedType::kF32) {
      std::memcpy(&w, block + 4 * i, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, block + 2 * i, 2);
      w = type == PackedType::kF16 ? HalfToFloat(half) : Bf16ToFloat(half);
    }
    out = std::fma(x[k], w, out);
  }
  return out;
}

float AddBlock(const PackedMatrix& w, const Activations& x, const std::byte* block, size_t b,
               size_t o, size_t r, float out) {
  const size_t groups = GroupsInBlock(w.depth, b);
  if (FormFor(w.type) == ActivationForm::kF32) {
    return AddFloatBlock(block, w.type, groups, o, x.f32 + r * x.f32_stride + b * kBlockDepth, out);
  }
  const QuantizedRows row = x.quantized(w.type).From(r);
  const int8_t* a = row.values + b * kBlockDepth;
  if (FormFor(w.type) == ActivationForm::kPerGroup) {
    for (size_t g = 0; g < groups; g++) {
      const size_t i = b * kGroupsPerBlock + g;
      out = AddGroup(block + g * GroupBytes(w.type), w.type, o, a + g * kGroupDepth, row.scales[i],
                     row.scaled_sums[i], out);
    }
    return out;
  }
  if (w.type == PackedType::kQ6_K) {
    return AddSixBitBlock(block, groups, o, a, row.scales[b], out);
  }
  return AddAffineBlock(block, w.type, groups, o, a, row.scales[b], out);
}

void Matmul(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
            size_t panel_begin, size_t panel_end, const float* bias, float* out, size_t out_stride,
            std::byte*) {
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    for (size_t o = 0; o < kPanelOutputs && panel * kPanelOutputs + o < w.num_outputs; o++) {
      for (size_t r = row_begin; r < row_end; r++) {
        const std::byte* block = w.panels + panel * w.panel_bytes();
        float sum = 0;
        for (size_t b = 0; b < BlocksFor(w.depth); b++) {
          sum = AddBlock(w, x, block, b, o, r, sum);
          block += BlockBytes(w.type, GroupsInBlock(w.depth, b));
        }
        const size_t output = panel * kPanelOutputs + o;
        out[r * out_stride + output] = bias != nullptr ? sum + bias[output] : sum;
      }
    }
  }
}

}  // namespace

MatmulKernels ScalarMatmulKernels() {
  return {.quantize_rows = QuantizeRows, .matmul = Matmul};
}

}  // namespace trellis
