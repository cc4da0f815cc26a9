// What packed bytes mean, one weight at a time: the obvious reading that tests hold every fast one
// against.
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "kernels/pack.h"
#include "kernels/packed_format.h"
#include "kernels/packed_read.h"

namespace trellis {
namespace {

using namespace packed;

uint8_t ByteAt(const std::byte* p, size_t i) {
  return static_cast<uint8_t>(p[i]);
}

float GroupWeight(const std::byte* block, PackedType type, size_t k, size_t o) {
  const std::byte* group = block + k / kGroupDepth * GroupBytes(type);
  const size_t i = k % kGroupDepth;
  const float d = HalfAt(group, o);
  if (type == PackedType::kQ8_0) {
    return d * static_cast<float>(ByteAt(group + kHalfRow, i / 4 * kByteQuadBytes + 4 * o + i % 4) -
                                  ZeroPoint(type));
  }
  int q = Nibble(group + GroupQuantOffset(type), i, o);
  if (HasBit4(type)) q |= Bit4(group + GroupBit4Offset(type), i, o);
  if (HasGroupMin(type)) return d * static_cast<float>(q) + HalfAt(group + kHalfRow, o);
  return d * static_cast<float>(q - ZeroPoint(type));
}

float AffineWeight(const std::byte* block, PackedType type, size_t groups, size_t k, size_t o) {
  const size_t g = k / kGroupDepth;
  const float d = HalfAt(block, o), dmin = HalfAt(block + DminOffset(), o);
  const int sc = ByteAt(block, ScOffset() + g * kPanelOutputs + o);
  const int m = ByteAt(block, MinOffset(groups) + g * kPanelOutputs + o);
  int q = Nibble(block + NibbleOffset(groups), k, o);
  if (HasBit4(type)) q |= Bit4(block + Bit4Offset(groups), k, o);
  return d * static_cast<float>(sc * q) - dmin * static_cast<float>(m);
}

float SixBitWeight(const std::byte* block, size_t groups, size_t k, size_t o) {
  const uint8_t high =
      ByteAt(block, Q6HighOffset(groups) + k / 8 * kNibbleQuadBytes + 4 * (o % 16) + k % 4);
  const size_t shift = 4 * (k / 4 % 2) + 2 * (o / 16);
  const int q = Nibble(block + Q6NibbleOffset(groups), k, o) | ((high >> shift) & 3) << 4;
  const int sc = static_cast<int8_t>(ByteAt(block, Q6ScOffset() + k / 16 * kPanelOutputs + o));
  return HalfAt(block, o) * static_cast<float>(sc * (q - 32));
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

void UnpackWeights(const PackedMatrix& w, float* values) {
  for (size_t output = 0; output < w.num_outputs; output++) {
    const std::byte* block = w.panels + output / kPanelOutputs * w.panel_bytes();
    const size_t o = output % kPanelOutputs;
    for (size_t b = 0; b < BlocksFor(w.depth); b++) {
      const size_t groups = GroupsInBlock(w.depth, b);
      for (size_t k = 0; k < groups * kGroupDepth; k++) {
        float* value = values + output * w.depth + b * kBlockDepth + k;
        switch (FormFor(w.type)) {
          case ActivationForm::kPerGroup:
            *value = GroupWeight(block, w.type, k, o);
            break;
          case ActivationForm::kPerBlock:
            *value = w.type == PackedType::kQ6_K ? SixBitWeight(block, groups, k, o)
                                                 : AffineWeight(block, w.type, groups, k, o);
            break;
          case ActivationForm::kF32:
            *value = FloatWeight(block, w.type, k, o);
            break;
        }
      }
      block += BlockBytes(w.type, groups);
    }
  }
}

}  // namespace trellis
