// What the vector matmuls of all instruction sets share. Internal to kernels/.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/packed_format.h"

namespace trellis {

// Calls f(std::integral_constant<PackedType, type>).
template <typename F>
inline void WithType(PackedType type, const F& f) {
  using enum PackedType;
  switch (type) {
    case kQ4_0:
      return f(std::integral_constant<PackedType, kQ4_0>{});
    case kQ4_1:
      return f(std::integral_constant<PackedType, kQ4_1>{});
    case kQ5_0:
      return f(std::integral_constant<PackedType, kQ5_0>{});
    case kQ5_1:
      return f(std::integral_constant<PackedType, kQ5_1>{});
    case kQ8_0:
      return f(std::integral_constant<PackedType, kQ8_0>{});
    case kQ4_K:
      return f(std::integral_constant<PackedType, kQ4_K>{});
    case kQ5_K:
      return f(std::integral_constant<PackedType, kQ5_K>{});
    case kQ6_K:
      return f(std::integral_constant<PackedType, kQ6_K>{});
    case kF16:
      return f(std::integral_constant<PackedType, kF16>{});
    case kBF16:
      return f(std::integral_constant<PackedType, kBF16>{});
    case kF32:
      return f(std::integral_constant<PackedType, kF32>{});
  }
}

// The rows of a tile at a block: QuantizedRows' pointers there, strides worked out once.
struct TileRows {
  const int8_t* values;
  const float* scales;
  const int16_t* group_sums;
  const float* scaled_sums;  // per group only
  const int16_t* half_sums;  // per block only
  size_t value_stride, scale_stride, group_stride;

  // On to the row `n` further down.
  [[gnu::always_inline]] void Skip(size_t n) {
    values += n * value_stride;
    scales += n * scale_stride;
    group_sums += n * group_stride;
    if (scaled_sums != nullptr) scaled_sums += n * scale_stride;
    if (half_sums != nullptr) half_sums += 2 * n * group_stride;
  }
};

TileRows TileRowsAt(const QuantizedRows& q, size_t row, size_t block);

// What values are multiplied by so that `max` becomes 127; 0 where that would be no number.
[[gnu::always_inline]] inline float QuantizationInverse(float max) {
  return max > 1e-30f ? 127.0f / max : 0.0f;
}

// MatmulKernels::quantize_rows. S::AbsMax(x, n) is the largest |x| of n, a multiple of 32.
// S::QuantizeGroup(x, inverse, values, sums) makes 32 values, round(x * inverse) to the nearest
// even within -127..127, and sums each half of them.
template <typename S>
void QuantizeRowsWith(const float* x, size_t stride, size_t num_rows, const QuantizedRows& rows) {
  const size_t depth = rows.depth, groups = depth / kGroupDepth, group_stride = rows.group_stride();
  const bool per_group = rows.scale_depth == kGroupDepth;
  for (size_t r = 0; r < num_rows; r++, x += stride) {
    const QuantizedRows out = rows.From(r);
    std::memset(out.values + depth, 0, out.value_stride() - depth);
    std::fill(out.group_sums + groups, out.group_sums + group_stride, int16_t{0});
    if (!per_group)
      std::fill(out.half_sums + 2 * groups, out.half_sums + 2 * group_stride, int16_t{0});
    for (size_t i = 0; i < out.num_scales(); i++) {
      const size_t begin = i * out.scale_depth, end = std::min(begin + out.scale_depth, depth);
      const float max = S::AbsMax(x + begin, end - begin);
      const float inverse = QuantizationInverse(max);
      out.scales[i] = max / 127.0f;
      int32_t sum = 0;
      for (size_t k = begin; k < end; k += kGroupDepth) {
        int16_t halves[2];
        S::QuantizeGroup(x + k, inverse, out.values + k, halves);
        if (!per_group) std::memcpy(out.half_sums + k / 16, halves, sizeof(halves));
        out.group_sums[k / kGroupDepth] = static_cast<int16_t>(halves[0] + halves[1]);
        sum += halves[0] + halves[1];
      }
      if (per_group) out.scaled_sums[i] = out.scales[i] * static_cast<float>(sum);
    }
  }
}

}  // namespace trellis
