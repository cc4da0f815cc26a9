// One packed number at a time, as packed_format.h lays them out. For portable translation units
// only: a copy compiled for one instruction set might be the one that the linker keeps.
#pragma once

#include <cstring>

#include "base/half.h"
#include "kernels/packed_format.h"

namespace trellis::packed {

// f16 number `i`.
inline float HalfAt(const std::byte* p, size_t i) {
  uint16_t half;
  std::memcpy(&half, p + 2 * i, 2);
  return HalfToFloat(half);
}

// The low four bits of depth `k` of output `o`, of 0..15.
inline int Nibble(const std::byte* nibbles, size_t k, size_t o) {
  const int byte = static_cast<int>(nibbles[k / 4 * kNibbleQuadBytes + 4 * (o % 16) + k % 4]);
  return o < 16 ? byte & 15 : byte >> 4;
}

// Its fifth bit in place: 0 or 16.
inline int Bit4(const std::byte* bits, size_t k, size_t o) {
  uint64_t word;
  std::memcpy(&word, bits + (k / 4 * 2 + o / 16) * sizeof(word), sizeof(word));
  return static_cast<int>((word >> (4 * (o % 16) + k % 4)) & 1) << 4;
}

}  // namespace trellis::packed
