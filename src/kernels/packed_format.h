// The byte layout of packed panels: what pack.cc writes and the matmul kernels read. Internal to
// kernels/.
//
// A panel is kPanelOutputs (32) outputs; a block is up to 8 groups of 32 depths; a quad is four
// consecutive depths. "o" is an output of the panel, "g" a group of the block, "j" a quad of the
// block. All multi-byte numbers are little endian.
//
// A quad as bytes (kQ8_0, and every type once unpacked) is 128 bytes: output o's four depths at 4 *
// o. A quad as nibbles is 64 bytes: byte 4 * (o % 16) + i holds depth i of output o in its low half
// for o < 16, in its high half for o >= 16.
//
//   kQ4_0 group   d [32] f16 | nibbles [j][64]
//   kQ4_1 group   d [32] f16 | m [32] f16 | nibbles [j][64]
//   kQ5_0, kQ5_1  the same, then bit 4: [j][2] u64; bit 4 * (o % 16) + i of word o / 16
//   kQ8_0 group   d [32] f16 | bytes [j][128], each weight + 128
//   kQ4_K block   d [32] f16 | dmin [32] f16 | sc [g][32] u8 | m [g][32] u8 | nibbles [j][64]
//   kQ5_K block   as kQ4_K, then bit 4 as above
//   kQ6_K block   d [32] f16 | sc [2g][32] s8 | nibbles [j][64] | bits 4, 5: [j / 2][64]; byte
//                 4 * (o % 16) + i holds, from bit 0 on, two bits each of (even quad, o < 16),
//                 (even quad, o >= 16), (odd quad, o < 16), (odd quad, o >= 16)
//   kF16, kBF16, kF32   [depth][32]
//
// Values:  kQ4_0, kQ5_0, kQ8_0: d * (q - ZeroPoint)   kQ4_1, kQ5_1: d * q + m
//          kQ4_K, kQ5_K: d * sc * q - dmin * m, sc and m in 0..63   kQ6_K: d * sc * (q - 32)
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"

namespace trellis::packed {

inline constexpr size_t kGroupsPerBlock = kBlockDepth / kGroupDepth;
inline constexpr size_t kQuadsPerGroup = kGroupDepth / 4;
inline constexpr size_t kNibbleQuadBytes = kPanelOutputs * 4 / 2;
inline constexpr size_t kByteQuadBytes = kPanelOutputs * 4;
inline constexpr size_t kHalfRow = kPanelOutputs * sizeof(uint16_t);  // 32 x f16

// --- Types with f16 scales per group ---

constexpr bool HasGroupMin(PackedType type) {
  return type == PackedType::kQ4_1 || type == PackedType::kQ5_1;
}
constexpr bool HasBit4(PackedType type) {
  return type == PackedType::kQ5_0 || type == PackedType::kQ5_1 || type == PackedType::kQ5_K;
}
constexpr int ZeroPoint(PackedType type) {
  return type == PackedType::kQ4_0 ? 8 : type == PackedType::kQ5_0 ? 16 : 128;
}
constexpr bool HasMin(PackedType type) {
  return HasGroupMin(type) || type == PackedType::kQ4_K || type == PackedType::kQ5_K;
}
inline constexpr size_t kBit4QuadBytes = 2 * sizeof(uint64_t);

constexpr size_t GroupQuantOffset(PackedType type) {
  return HasGroupMin(type) ? 2 * kHalfRow : kHalfRow;
}
constexpr size_t GroupBit4Offset(PackedType type) {
  return GroupQuantOffset(type) + kQuadsPerGroup * kNibbleQuadBytes;
}
constexpr size_t GroupBytes(PackedType type) {
  if (type == PackedType::kQ8_0) return GroupQuantOffset(type) + kQuadsPerGroup * kByteQuadBytes;
  return GroupBit4Offset(type) + (HasBit4(type) ? kQuadsPerGroup * kBit4QuadBytes : 0);
}

// --- K-types: a block of `groups` groups under one f16 scale; GGUF has whole blocks only ---

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

constexpr size_t Q6ScOffset() {
  return kHalfRow;
}
constexpr size_t Q6NibbleOffset(size_t groups) {
  return Q6ScOffset() + 2 * groups * kPanelOutputs;
}
constexpr size_t Q6HighOffset(size_t groups) {
  return Q6NibbleOffset(groups) + groups * kQuadsPerGroup * kNibbleQuadBytes;
}

constexpr size_t BlockBytes(PackedType type, size_t groups) {
  switch (type) {
    case PackedType::kQ4_0:
    case PackedType::kQ4_1:
    case PackedType::kQ5_0:
    case PackedType::kQ5_1:
    case PackedType::kQ8_0:
      return groups * GroupBytes(type);
    case PackedType::kQ4_K:
      return Bit4Offset(groups);
    case PackedType::kQ5_K:
      return Bit4Offset(groups) + groups * kQuadsPerGroup * kBit4QuadBytes;
    case PackedType::kQ6_K:
      return Q6HighOffset(groups) + groups * kQuadsPerGroup / 2 * kNibbleQuadBytes;
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

}  // namespace trellis::packed
