// The byte layout of packed panels: what pack.cc writes and the matmul kernels read. Internal to
// kernels/.
//
// A panel is kPanelOutputs (32) outputs; a block is up to 8 groups of 32 depths; a quad is four
// consecutive depths. "o" is an output of the panel, "g" a group of the block, "j" a quad of the
// block. All multi-byte numbers are little endian.
//
// A quad as bytes (kS8, and every kind once unpacked) is 128 bytes: output o's four depths at 4 *
// o. A quad as nibbles is 64 bytes: byte 4 * (o % 16) + i holds depth i of output o in its low half
// for o < 16, in its high half for o >= 16.
//
//   kU4 block   d [32] f16 | dmin [32] f16 | sc [g][32] u8 | m [g][32] s8 | nibbles [j][64]
//   kU5 block   as kU4, then bit 4: [j][2] u64; bit 4 * (o % 16) + i of word o / 16
//   kU6 block   d [32] f16 | sc [2g][32] s8 | nibbles [j][64] | bits 4, 5: [j / 2][64]; byte 4 * (o
//   % 16) + i holds, from bit 0 on,
//               two bits each of (even quad, o < 16), (even quad, o >= 16), (odd quad, o < 16),
//               (odd quad, o >= 16)
//   kS8 group   d [32] f16 | bytes [8][128], each weight + 128
//   kF16, kBF16, kF32   [depth][32]
//
// Values:  kU4, kU5: d * sc * q - dmin * m, 0 <= sc <= 127     kU6: d * sc * (q - 32)     kS8: d *
// (byte - 128)
//
// FOLDING (kU4, kU5). Kernels with 8-bit dot products fold scale and min into one unsigned byte,
//   W = (q * sc + C) >> shift,   C = (128 << shift) + (1 << (shift - 1)) - round(m * (dmin / d))
// so that a weight is d * 2^shift * (W - 128) and a block needs one conversion to f32. The packer
// chooses d and sc such that W stays in 0..255 for every q and group; the error is at most one half
// of d * 2^shift, plus what rounding C adds (1 / 2^(shift + 1)).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"

namespace trellis::packed {

inline constexpr size_t kGroupsPerBlock = kBlockDepth / kGroupDepth;
inline constexpr size_t kQuadsPerGroup = kGroupDepth / 4;
inline constexpr size_t kNibbleQuadBytes = kPanelOutputs * 4 / 2;
inline constexpr size_t kByteQuadBytes = kPanelOutputs * 4;
inline constexpr size_t kHalfRow = kPanelOutputs * sizeof(uint16_t);  // 32 x f16

inline constexpr int kFoldShiftU4 = 3;  // 15 * 127 >> 3 = 238
inline constexpr int kFoldShiftU5 = 4;  // 31 * 127 >> 4 = 246
constexpr int FoldShift(PackedType type) {
  return type == PackedType::kU4 ? kFoldShiftU4 : kFoldShiftU5;
}

// Offsets inside a kU4 / kU5 block of `groups` groups.
constexpr size_t DminOffset() {
  return kHalfRow;
}
constexpr size_t ScOffset() {
  return 2 * kHalfRow;
}
constexpr size_t MinOffset(size_t groups) {
  return ScOffset() + groups * kPanelOutputs;
}
constexpr size_t NibbleOffset(size_t groups) {
  return MinOffset(groups) + groups * kPanelOutputs;
}
constexpr size_t Bit4Offset(size_t groups) {
  return NibbleOffset(groups) + groups * kQuadsPerGroup * kNibbleQuadBytes;
}
constexpr size_t U4BlockBytes(size_t groups) {
  return Bit4Offset(groups);
}
constexpr size_t U5BlockBytes(size_t groups) {
  return Bit4Offset(groups) + groups * kQuadsPerGroup * 2 * sizeof(uint64_t);
}

// Offsets inside a kU6 block.
constexpr size_t U6ScOffset() {
  return kHalfRow;
}
constexpr size_t U6NibbleOffset(size_t groups) {
  return U6ScOffset() + 2 * groups * kPanelOutputs;
}
constexpr size_t U6HighOffset(size_t groups) {
  return U6NibbleOffset(groups) + groups * kQuadsPerGroup * kNibbleQuadBytes;
}
constexpr size_t U6BlockBytes(size_t groups) {
  return U6HighOffset(groups) + groups * kQuadsPerGroup / 2 * kNibbleQuadBytes;
}

inline constexpr size_t kS8GroupBytes = kHalfRow + kQuadsPerGroup * kByteQuadBytes;

constexpr size_t BlockBytes(PackedType type, size_t groups) {
  switch (type) {
    case PackedType::kU4:
      return U4BlockBytes(groups);
    case PackedType::kU5:
      return U5BlockBytes(groups);
    case PackedType::kU6:
      return U6BlockBytes(groups);
    case PackedType::kS8:
      return groups * kS8GroupBytes;
    case PackedType::kF16:
    case PackedType::kBF16:
      return groups * kGroupDepth * kPanelOutputs * 2;
    case PackedType::kF32:
      return groups * kGroupDepth * kPanelOutputs * 4;
  }
  return 0;
}

// Groups in block `block` of a matrix of `depth`: kGroupsPerBlock but for the last.
constexpr size_t GroupsInBlock(size_t depth, size_t block) {
  const size_t left = depth / kGroupDepth - block * kGroupsPerBlock;
  return left < kGroupsPerBlock ? left : kGroupsPerBlock;
}

// The folding formula, stated once: every kernel computes exactly these f32 operations.
inline float FoldRatio(float d, float dmin) {
  return d != 0 ? dmin / d : 0.0f;
}
inline int FoldOffset(int m, float ratio, int shift) {
  const float offset = static_cast<float>(m) * ratio;
  // The comparison also refuses NaN, which only a damaged file can bring here.
  const int rounded = std::fabs(offset) < 1e6f ? static_cast<int>(std::nearbyint(offset)) : 0;
  return (128 << shift) + (1 << (shift - 1)) - rounded;
}

}  // namespace trellis::packed
