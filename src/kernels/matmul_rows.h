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
  const float* scaled_sums;   // per group only
  const int16_t* half_sums;   // per block only
  const int32_t* block_sums;  // per block only
  size_t value_stride, scale_stride, group_stride;
};

inline TileRows TileRowsAt(const QuantizedRows& q, size_t row, size_t block) {
  const QuantizedRows at = q.From(row);
  const size_t group = block * packed::kGroupsPerBlock;
  const bool per_group = q.scale_depth == kGroupDepth;
  return {.values = at.values + block * kBlockDepth,
          .scales = at.scales + (per_group ? group : block),
          .group_sums = at.group_sums + group,
          .scaled_sums = per_group ? at.scaled_sums + group : nullptr,
          .half_sums = per_group ? nullptr : at.half_sums + 2 * group,
          .block_sums = per_group ? nullptr : at.block_sums + block,
          .value_stride = q.value_stride(),
          .scale_stride = q.num_scales(),
          .group_stride = q.group_stride()};
}

// MatmulKernels::quantize_rows from
//   float S::AbsMax(const float* x, size_t n): n is a multiple of 32
//   void S::QuantizeGroup(const float* x, float inverse, int8_t* values, int16_t sums[2]): 32
//   values,
//     round(x * inverse) to the nearest even within -127..127, and the sums of each half.
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
      const float inverse = max > 0 ? 127.0f / max : 0.0f;
      out.scales[i] = max / 127.0f;
      int32_t sum = 0;
      for (size_t k = begin; k < end; k += kGroupDepth) {
        int16_t halves[2];
        S::QuantizeGroup(x + k, inverse, out.values + k, halves);
        if (!per_group) std::memcpy(out.half_sums + k / 16, halves, sizeof(halves));
        out.group_sums[k / kGroupDepth] = static_cast<int16_t>(halves[0] + halves[1]);
        sum += halves[0] + halves[1];
      }
      if (per_group) {
        out.scaled_sums[i] = out.scales[i] * static_cast<float>(sum);
      } else {
        out.block_sums[i] = sum;
      }
    }
  }
}

}  // namespace trellis
