// The oracle: the arithmetic of kernels with 8-bit dot products, one number at a time. The AVX-512
// and NEON kernels give these bits exactly; AVX2 keeps scales and mins apart (matmul_avx2.cc) and
// is near them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/kernels_internal.h"
#include "kernels/packed_format.h"

namespace trellis {
namespace {

using namespace packed;

void QuantizeRows(const float* x, size_t stride, size_t num_rows, const QuantizedRows& out) {
  for (size_t r = 0; r < num_rows; r++) {
    const float* row = x + r * stride;
    int8_t* values = out.values + r * out.value_stride();
    int16_t* sums = out.sums + r * out.sum_stride();
    std::fill(values + out.depth, values + out.value_stride(), int8_t{0});
    std::fill(sums, sums + out.sum_stride(), int16_t{0});
    for (size_t b = 0; b < BlocksFor(out.depth); b++) {
      const size_t begin = b * kBlockDepth, end = std::min(begin + kBlockDepth, out.depth);
      float amax = 0;
      for (size_t k = begin; k < end; k++) amax = std::max(amax, std::fabs(row[k]));
      const float inverse = amax > 0 ? 127.0f / amax : 0.0f;
      int32_t block_sum = 0;
      for (size_t k = begin; k < end; k++) {
        const float q = std::nearbyint(row[k] * inverse);
        values[k] = static_cast<int8_t>(q >= -127.0f ? (q <= 127.0f ? q : 127.0f) : -127.0f);
        sums[k / 16] = static_cast<int16_t>(sums[k / 16] + values[k]);
        block_sum += values[k];
      }
      out.scales[r * BlocksFor(out.depth) + b] = amax / 127.0f;
      out.block_sums[r * BlocksFor(out.depth) + b] = block_sum;
    }
  }
}

float HalfAt(const std::byte* p, size_t i) {
  uint16_t half;
  std::memcpy(&half, p + 2 * i, 2);
  return HalfToFloat(half);
}

int Nibble(const std::byte* nibbles, size_t k, size_t o) {
  const int byte = static_cast<int>(nibbles[k / 4 * kNibbleQuadBytes + 4 * (o % 16) + k % 4]);
  return o < 16 ? byte & 15 : byte >> 4;
}

// One row's contribution of one block to one output.
float AffineBlock(const std::byte* block, PackedType type, size_t groups, size_t o, const int8_t* a,
                  float scale, int32_t block_sum, float out) {
  const float d = HalfAt(block, o), ratio = FoldRatio(d, HalfAt(block + DminOffset(), o));
  const int shift = FoldShift(type);
  int32_t sum = -128 * block_sum;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const size_t g = k / kGroupDepth;
    const int sc = static_cast<int>(block[ScOffset() + g * kPanelOutputs + o]);
    const int m = static_cast<int8_t>(block[MinOffset(groups) + g * kPanelOutputs + o]);
    int q = Nibble(block + NibbleOffset(groups), k, o);
    if (type == PackedType::kU5) {
      uint64_t word;
      std::memcpy(&word, block + Bit4Offset(groups) + (k / 4 * 2 + o / 16) * 8, 8);
      q |= static_cast<int>((word >> (4 * (o % 16) + k % 4)) & 1) << 4;
    }
    sum += ((q * sc + FoldOffset(m, ratio, shift)) >> shift) * a[k];
  }
  return std::fma(static_cast<float>(sum), d * static_cast<float>(1 << shift) * scale, out);
}

float SixBitBlock(const std::byte* block, size_t groups, size_t o, const int8_t* a, float scale,
                  float out) {
  int32_t sum = 0;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const int high = static_cast<int>(
        block[U6HighOffset(groups) + k / 8 * kNibbleQuadBytes + 4 * (o % 16) + k % 4]);
    const int q = Nibble(block + U6NibbleOffset(groups), k, o) |
                  ((high >> (4 * (k / 4 % 2) + 2 * (o / 16))) & 3) << 4;
    const int sc = static_cast<int8_t>(block[U6ScOffset() + k / 16 * kPanelOutputs + o]);
    sum += sc * (q - 32) * a[k];
  }
  return std::fma(static_cast<float>(sum), HalfAt(block, o) * scale, out);
}

float S8Block(const std::byte* block, size_t groups, size_t o, const int8_t* a, float scale,
              float out) {
  for (size_t g = 0; g < groups; g++) {
    const std::byte* group = block + g * kS8GroupBytes;
    int32_t sum = 0;
    for (size_t i = 0; i < kGroupDepth; i++) {
      const int w =
          static_cast<int>(group[kHalfRow + i / 4 * kByteQuadBytes + 4 * o + i % 4]) - 128;
      sum += w * a[g * kGroupDepth + i];
    }
    out = std::fma(static_cast<float>(sum), HalfAt(group, o) * scale, out);
  }
  return out;
}

float FloatBlock(const std::byte* block, PackedType type, size_t groups, size_t o, const float* x,
                 float out) {
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

void Matmul(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
            size_t panel_begin, size_t panel_end, const float* bias, float* out, size_t out_stride,
            std::byte*) {
  const size_t blocks = BlocksFor(w.depth);
  const QuantizedRows& rows = x.quantized;
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    for (size_t o = 0; o < kPanelOutputs && panel * kPanelOutputs + o < w.num_outputs; o++) {
      for (size_t r = row_begin; r < row_end; r++) {
        const std::byte* block = w.panels + panel * w.panel_bytes();
        const int8_t* a = rows.values + r * rows.value_stride();
        float sum = 0;
        for (size_t b = 0; b < blocks; b++) {
          const size_t groups = GroupsInBlock(w.depth, b);
          if (!IsQuantized(w.type)) {
            sum = FloatBlock(block, w.type, groups, o, x.f32 + r * x.f32_stride + b * kBlockDepth,
                             sum);
          } else {
            const float scale = rows.scales[r * blocks + b];
            const int8_t* values = a + b * kBlockDepth;
            if (w.type == PackedType::kU6) {
              sum = SixBitBlock(block, groups, o, values, scale, sum);
            } else if (w.type == PackedType::kS8) {
              sum = S8Block(block, groups, o, values, scale, sum);
            } else {
              sum = AffineBlock(block, w.type, groups, o, values, scale,
                                rows.block_sums[r * blocks + b], sum);
            }
          }
          block += BlockBytes(w.type, groups);
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
