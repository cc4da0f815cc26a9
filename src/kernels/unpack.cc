// What packed bytes mean, one weight at a time: the obvious reading that tests hold every fast one
// against.
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/pack.h"
#include "kernels/packed_format.h"

namespace trellis {
namespace {

using namespace packed;

uint8_t ByteAt(const std::byte* p, size_t i) {
  return static_cast<uint8_t>(p[i]);
}

float HalfAt(const std::byte* p, size_t i) {
  uint16_t half;
  std::memcpy(&half, p + 2 * i, 2);
  return HalfToFloat(half);
}

int Nibble(const std::byte* nibbles, size_t k, size_t o) {
  const uint8_t byte = ByteAt(nibbles, k / 4 * kNibbleQuadBytes + 4 * (o % 16) + k % 4);
  return o < 16 ? byte & 15 : byte >> 4;
}

float AffineWeight(const std::byte* block, PackedType type, size_t groups, size_t k, size_t o,
                   PackedReading reading) {
  const size_t g = k / kGroupDepth;
  const float d = HalfAt(block, o), dmin = HalfAt(block + DminOffset(), o);
  const int sc = ByteAt(block, ScOffset() + g * kPanelOutputs + o);
  const int m = static_cast<int8_t>(ByteAt(block, MinOffset(groups) + g * kPanelOutputs + o));
  int q = Nibble(block + NibbleOffset(groups), k, o);
  if (type == PackedType::kU5) {
    uint64_t word;
    std::memcpy(&word, block + Bit4Offset(groups) + (k / 4 * 2 + o / 16) * sizeof(word),
                sizeof(word));
    q |= static_cast<int>((word >> (4 * (o % 16) + k % 4)) & 1) << 4;
  }
  if (reading == PackedReading::kExact) {
    return d * static_cast<float>(sc * q) - dmin * static_cast<float>(m);
  }
  const int shift = FoldShift(type);
  const int folded = (q * sc + FoldOffset(m, FoldRatio(d, dmin), shift)) >> shift;
  return d * static_cast<float>(1 << shift) * static_cast<float>(folded - 128);
}

float SixBitWeight(const std::byte* block, size_t groups, size_t k, size_t o) {
  const uint8_t high =
      ByteAt(block, U6HighOffset(groups) + k / 8 * kNibbleQuadBytes + 4 * (o % 16) + k % 4);
  const size_t shift = 4 * (k / 4 % 2) + 2 * (o / 16);
  const int q = Nibble(block + U6NibbleOffset(groups), k, o) | ((high >> shift) & 3) << 4;
  const int sc = static_cast<int8_t>(ByteAt(block, U6ScOffset() + k / 16 * kPanelOutputs + o));
  return HalfAt(block, o) * static_cast<float>(sc * (q - 32));
}

float S8Weight(const std::byte* block, size_t k, size_t o) {
  const std::byte* group = block + k / kGroupDepth * kS8GroupBytes;
  const size_t quad = k % kGroupDepth / 4;
  const int byte = ByteAt(group, kHalfRow + quad * kByteQuadBytes + 4 * o + k % 4);
  return HalfAt(group, o) * static_cast<float>(byte - 128);
}

float FloatWeight(const std::byte* block, PackedType type, size_t k, size_t o) {
  const size_t i = k * kPanelOutputs + o;
  if (type == PackedType::kF16) return HalfAt(block, i);
  if (type == PackedType::kBF16) {
    uint16_t half;
    std::memcpy(&half, block + 2 * i, 2);
    return Bf16ToFloat(half);
  }
  float value;
  std::memcpy(&value, block + 4 * i, 4);
  return value;
}

}  // namespace

void UnpackWeights(const PackedMatrix& w, PackedReading reading, float* values) {
  for (size_t output = 0; output < w.num_outputs; output++) {
    const std::byte* block = w.panels + output / kPanelOutputs * w.panel_bytes();
    const size_t o = output % kPanelOutputs;
    for (size_t b = 0; b < BlocksFor(w.depth); b++) {
      const size_t groups = GroupsInBlock(w.depth, b);
      for (size_t k = 0; k < groups * kGroupDepth; k++) {
        float* value = values + output * w.depth + b * kBlockDepth + k;
        switch (w.type) {
          case PackedType::kU4:
          case PackedType::kU5:
            *value = AffineWeight(block, w.type, groups, k, o, reading);
            break;
          case PackedType::kU6:
            *value = SixBitWeight(block, groups, k, o);
            break;
          case PackedType::kS8:
            *value = S8Weight(block, k, o);
            break;
          default:
            *value = FloatWeight(block, w.type, k, o);
            break;
        }
      }
      block += BlockBytes(w.type, groups);
    }
  }
}

}  // namespace trellis
