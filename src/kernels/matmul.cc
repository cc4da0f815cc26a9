// What is the same on every instruction set, compiled for none of them: code that ended up in a
// vector translation unit might be the copy that the linker keeps for all.
#include "kernels/matmul.h"

#include <algorithm>

#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"

namespace trellis {

const char* PackedTypeName(PackedType type) {
  switch (type) {
    case PackedType::kQ4_0:
      return "q4_0";
    case PackedType::kQ4_1:
      return "q4_1";
    case PackedType::kQ5_0:
      return "q5_0";
    case PackedType::kQ5_1:
      return "q5_1";
    case PackedType::kQ8_0:
      return "q8_0";
    case PackedType::kQ4_K:
      return "q4_K";
    case PackedType::kQ5_K:
      return "q5_K";
    case PackedType::kQ6_K:
      return "q6_K";
    case PackedType::kF16:
      return "f16";
    case PackedType::kBF16:
      return "bf16";
    case PackedType::kF32:
      return "f32";
  }
  return "?";
}

size_t PanelBytes(PackedType type, size_t depth) {
  size_t bytes = 0;
  for (size_t block = 0; block < BlocksFor(depth); block++)
    bytes += packed::BlockBytes(type, packed::GroupsInBlock(depth, block));
  return bytes;
}

QuantizedRows QuantizedRows::From(size_t row) const {
  QuantizedRows rows = *this;
  rows.values += row * value_stride();
  rows.scales += row * num_scales();
  rows.group_sums += row * group_stride();
  if (scale_depth == kGroupDepth) {
    rows.scaled_sums += row * num_scales();
  } else {
    rows.half_sums += row * 2 * group_stride();
  }
  return rows;
}

QuantizedRows QuantizedRows::Block(size_t block) const {
  QuantizedRows row = *this;
  const size_t begin = block * kBlockDepth;
  row.depth = std::min(kBlockDepth, depth - begin);
  row.values += begin;
  row.scales += begin / scale_depth;
  row.group_sums += begin / kGroupDepth;
  if (scale_depth == kGroupDepth) {
    row.scaled_sums += begin / scale_depth;
  } else {
    row.half_sums += 2 * begin / kGroupDepth;
  }
  return row;
}

TileRows TileRowsAt(const QuantizedRows& q, size_t row, size_t block) {
  const QuantizedRows at = q.From(row);
  const size_t group = block * packed::kGroupsPerBlock;
  const bool per_group = q.scale_depth == kGroupDepth;
  return {.values = at.values + block * kBlockDepth,
          .scales = at.scales + (per_group ? group : block),
          .group_sums = at.group_sums + group,
          .scaled_sums = per_group ? at.scaled_sums + group : nullptr,
          .half_sums = per_group ? nullptr : at.half_sums + 2 * group,
          .value_stride = q.value_stride(),
          .scale_stride = q.num_scales(),
          .group_stride = q.group_stride()};
}

}  // namespace trellis
