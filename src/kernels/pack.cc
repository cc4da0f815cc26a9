#include "kernels/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "base/half.h"
#include "kernels/packed_format.h"

namespace trellis {
namespace {

using namespace packed;

uint16_t LoadU16(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

uint8_t U8(const std::byte* p, size_t i) {
  return static_cast<uint8_t>(p[i]);
}

// One output's part of a block of an affine kind (kU4, kU5), before and after packing.
struct AffineBlock {
  uint8_t q[kBlockDepth];
  uint16_t d = 0, dmin = 0;  // f16
  uint8_t sc[kGroupsPerBlock] = {};
  int8_t m[kGroupsPerBlock] = {};
};

// One output's part of a kU6 block.
struct SixBitBlock {
  uint8_t q[kBlockDepth];
  uint16_t d = 0;
  int8_t sc[2 * kGroupsPerBlock] = {};
};

// ---- Readers of ggml's blocks (ggml-common.h)
// ---------------------------------------------------------------------

// Scale `i` and min `i` (6 bits each) out of the 12 bytes that Q4_K and Q5_K share.
void ReadKScale(const std::byte* s, size_t i, uint8_t* scale, int8_t* min) {
  if (i < 4) {
    *scale = U8(s, i) & 63;
    *min = static_cast<int8_t>(U8(s, i + 4) & 63);
  } else {
    *scale = static_cast<uint8_t>((U8(s, i + 4) & 15) | (U8(s, i - 4) >> 6) << 4);
    *min = static_cast<int8_t>((U8(s, i + 4) >> 4) | (U8(s, i) >> 6) << 4);
  }
}

// block_q4_K { f16 d, dmin; u8 scales[12]; u8 qs[128] };  block_q5_K has u8 qh[32] before qs.
void ReadQ45K(const std::byte* block, bool five_bits, AffineBlock* out) {
  out->d = LoadU16(block);
  out->dmin = LoadU16(block + 2);
  for (size_t g = 0; g < kGroupsPerBlock; g++) ReadKScale(block + 4, g, &out->sc[g], &out->m[g]);
  const std::byte* high = block + 16;
  const std::byte* low = five_bits ? high + 32 : high;
  for (size_t pair = 0; pair < kGroupsPerBlock / 2; pair++) {
    uint8_t* q = out->q + pair * 64;
    for (size_t i = 0; i < 32; i++) {
      const uint8_t byte = U8(low, pair * 32 + i);
      q[i] = byte & 15;
      q[32 + i] = byte >> 4;
    }
    if (!five_bits) continue;
    for (size_t i = 0; i < 32; i++) {
      const unsigned bits = U8(high, i) >> (2 * pair);
      q[i] |= static_cast<uint8_t>((bits & 1) << 4);
      q[32 + i] |= static_cast<uint8_t>((bits & 2) << 3);
    }
  }
}

// What Q4_0, Q4_1, Q5_0 and Q5_1 have in common: groups of 32, weight = scale * q + offset.
struct AffineGroup {
  float scale;
  float offset;
};

// block_q4_0 { f16 d; u8 qs[16] }, q4_1 { f16 d, m; qs }, q5_0 { f16 d; u32 qh; qs }, q5_1 { f16 d,
// m; u32 qh; qs }
AffineGroup ReadLegacyGroup(const std::byte* block, GgufType type, uint8_t* q) {
  const bool has_min = type == GgufType::kQ4_1 || type == GgufType::kQ5_1;
  const bool five_bits = type == GgufType::kQ5_0 || type == GgufType::kQ5_1;
  const int top = five_bits ? 31 : 15;
  const float d = HalfToFloat(LoadU16(block));
  const float m =
      has_min ? HalfToFloat(LoadU16(block + 2)) : -d * static_cast<float>((top + 1) / 2);
  const std::byte* p = block + (has_min ? 4 : 2);
  uint32_t high = 0;
  if (five_bits) {
    std::memcpy(&high, p, 4);
    p += 4;
  }
  for (size_t i = 0; i < 16; i++) {
    q[i] = static_cast<uint8_t>((U8(p, i) & 15) | ((high >> i) & 1) << 4);
    q[16 + i] = static_cast<uint8_t>((U8(p, i) >> 4) | ((high >> (16 + i)) & 1) << 4);
  }
  if (d >= 0) return {d, m};
  // Packed scales are not negative: count q from the other end.
  for (size_t i = 0; i < 32; i++) q[i] = static_cast<uint8_t>(top - q[i]);
  return {-d, m + d * static_cast<float>(top)};
}

// block_q6_K { u8 ql[128], qh[64]; s8 scales[16]; f16 d }
void ReadQ6K(const std::byte* block, SixBitBlock* out) {
  const std::byte* high = block + 128;
  std::memcpy(out->sc, block + 192, 16);
  out->d = LoadU16(block + 208);
  for (size_t half = 0; half < 2; half++) {
    const std::byte* ql = block + half * 64;
    const std::byte* qh = high + half * 32;
    uint8_t* q = out->q + half * 128;
    for (size_t i = 0; i < 32; i++) {
      const unsigned a = U8(ql, i), b = U8(ql, i + 32), h = U8(qh, i);
      q[i] = static_cast<uint8_t>((a & 15) | (h & 3) << 4);
      q[i + 32] = static_cast<uint8_t>((b & 15) | ((h >> 2) & 3) << 4);
      q[i + 64] = static_cast<uint8_t>((a >> 4) | ((h >> 4) & 3) << 4);
      q[i + 96] = static_cast<uint8_t>((b >> 4) | (h >> 6) << 4);
    }
  }
}

// block_q3_K { u8 hmask[32], qs[64], scales[12]; f16 d }: 3-bit weights -4..3, 6-bit scales - 32.
void ReadQ3K(const std::byte* block, SixBitBlock* out) {
  const std::byte* qs = block + 32;
  const std::byte* s = block + 96;
  out->d = LoadU16(block + 108);
  for (size_t i = 0; i < 16; i++) {
    const unsigned low = i < 8 ? U8(s, i) & 15u : U8(s, i - 8) >> 4;
    const unsigned high = (U8(s, 8 + i % 4) >> (2 * (i / 4))) & 3u;
    out->sc[i] = static_cast<int8_t>(static_cast<int>(low | high << 4) - 32);
  }
  for (size_t k = 0; k < kBlockDepth; k++) {
    const size_t half = k / 128, plane = k % 128 / 32, i = k % 32;
    const unsigned low = (U8(qs, half * 32 + i) >> (2 * plane)) & 3u;
    const unsigned set = (U8(block, i) >> (half * 4 + plane)) & 1u;
    out->q[k] = static_cast<uint8_t>(32 + static_cast<int>(low) - (set != 0 ? 0 : 4));
  }
}

// ---- Choosing the packed scales
// -----------------------------------------------------------------------------------

uint16_t HalfAtLeastTiny(float value) {
  const uint16_t half = FloatToHalf(value);
  return value > 0 && half == 0 ? uint16_t{1} : half;
}

// Scales 0..127 and mins -127..127 for groups given in floats.
void QuantizeScales(const AffineGroup* groups, size_t num_groups, int top, AffineBlock* out) {
  float max_scale = 0, max_offset = 0;
  for (size_t g = 0; g < num_groups; g++) max_scale = std::max(max_scale, groups[g].scale);
  out->d = HalfAtLeastTiny(max_scale / 127.0f);
  const float d = HalfToFloat(out->d);
  float offsets[kGroupsPerBlock] = {};
  for (size_t g = 0; g < num_groups; g++) {
    const float sc = d > 0 ? std::nearbyint(groups[g].scale / d) : 0.0f;
    out->sc[g] = static_cast<uint8_t>(std::clamp(sc, 0.0f, 127.0f));
    // What rounding the scale moves is centred: the middle of the group stays where it was.
    const float lost = groups[g].scale - d * static_cast<float>(out->sc[g]);
    offsets[g] = groups[g].offset + lost * static_cast<float>(top) / 2;
    max_offset = std::max(max_offset, std::fabs(offsets[g]));
  }
  out->dmin = HalfAtLeastTiny(max_offset / 127.0f);
  const float dmin = HalfToFloat(out->dmin);
  for (size_t g = 0; g < num_groups; g++) {
    const float m = dmin > 0 ? std::nearbyint(-offsets[g] / dmin) : 0.0f;
    out->m[g] = static_cast<int8_t>(std::clamp(m, -127.0f, 127.0f));
  }
}

bool FoldFits(const AffineBlock& block, size_t num_groups, int top, int shift) {
  const float ratio = FoldRatio(HalfToFloat(block.d), HalfToFloat(block.dmin));
  for (size_t g = 0; g < num_groups; g++) {
    const int c = FoldOffset(block.m[g], ratio, shift);
    if (c < 0 || ((top * block.sc[g] + c) >> shift) > 255) return false;
  }
  return true;
}

// Brings sc to the largest range in which the folded weights fit a byte. Doubling is exact; halving
// happens to blocks whose weights are far from centred.
void NormalizeForFold(AffineBlock* block, size_t num_groups, int top, int shift) {
  if (HalfToFloat(block->d) == 0 && HalfToFloat(block->dmin) != 0) {
    block->d = HalfAtLeastTiny(HalfToFloat(block->dmin) / static_cast<float>(1 << shift));
    std::fill(block->sc, block->sc + kGroupsPerBlock, uint8_t{0});
  }
  const uint8_t max_sc = *std::max_element(block->sc, block->sc + num_groups);
  const uint16_t half_d = FloatToHalf(HalfToFloat(block->d) / 2);
  if (max_sc <= 63 && HalfToFloat(half_d) * 2 == HalfToFloat(block->d)) {
    AffineBlock doubled = *block;
    doubled.d = half_d;
    for (size_t g = 0; g < num_groups; g++) doubled.sc[g] = static_cast<uint8_t>(block->sc[g] * 2);
    if (FoldFits(doubled, num_groups, top, shift)) *block = doubled;
  }
  for (int halvings = 0; halvings < 24 && !FoldFits(*block, num_groups, top, shift); halvings++) {
    block->d = FloatToHalf(HalfToFloat(block->d) * 2);
    for (size_t g = 0; g < num_groups; g++)
      block->sc[g] = static_cast<uint8_t>((block->sc[g] + 1) / 2);
  }
}

// ---- Writers of packed blocks
// -------------------------------------------------------------------------------------

uint32_t LoadQuad(const uint8_t* q, size_t quad) {
  uint32_t value;
  std::memcpy(&value, q + 4 * quad, 4);
  return value;
}

void StoreU32(std::byte* p, uint32_t value) {
  std::memcpy(p, &value, 4);
}
void StoreU16(std::byte* p, uint16_t value) {
  std::memcpy(p, &value, 2);
}

// Low four bits of each q, in the nibble order of a quad.
template <typename Block>
void WriteNibbles(const Block* outputs, size_t num_quads, std::byte* to) {
  for (size_t j = 0; j < num_quads; j++) {
    for (size_t o = 0; o < 16; o++) {
      const uint32_t low = LoadQuad(outputs[o].q, j) & 0x0f0f0f0fu;
      const uint32_t high = LoadQuad(outputs[o + 16].q, j) & 0x0f0f0f0fu;
      StoreU32(to + j * kNibbleQuadBytes + 4 * o, low | high << 4);
    }
  }
}

void WriteBit4(const AffineBlock* outputs, size_t num_quads, std::byte* to) {
  for (size_t j = 0; j < num_quads; j++) {
    for (size_t half = 0; half < 2; half++) {
      uint64_t word = 0;
      for (size_t o = 0; o < 16; o++) {
        const uint32_t bits = (LoadQuad(outputs[16 * half + o].q, j) >> 4) & 0x01010101u;
        const uint64_t packed_bits = (bits * 0x10204080u) >> 28;  // the four bits, in order
        word |= static_cast<uint64_t>(packed_bits & 15) << (4 * o);
      }
      std::memcpy(to + (2 * j + half) * sizeof(word), &word, sizeof(word));
    }
  }
}

void WriteAffineBlock(const AffineBlock* outputs, PackedType type, size_t groups, std::byte* to) {
  for (size_t o = 0; o < kPanelOutputs; o++) {
    StoreU16(to + 2 * o, outputs[o].d);
    StoreU16(to + DminOffset() + 2 * o, outputs[o].dmin);
    for (size_t g = 0; g < groups; g++) {
      to[ScOffset() + g * kPanelOutputs + o] = static_cast<std::byte>(outputs[o].sc[g]);
      to[MinOffset(groups) + g * kPanelOutputs + o] = static_cast<std::byte>(outputs[o].m[g]);
    }
  }
  WriteNibbles(outputs, groups * kQuadsPerGroup, to + NibbleOffset(groups));
  if (type == PackedType::kU5) WriteBit4(outputs, groups * kQuadsPerGroup, to + Bit4Offset(groups));
}

void WriteSixBitBlock(const SixBitBlock* outputs, size_t groups, std::byte* to) {
  for (size_t o = 0; o < kPanelOutputs; o++) {
    StoreU16(to + 2 * o, outputs[o].d);
    for (size_t g = 0; g < 2 * groups; g++) {
      to[U6ScOffset() + g * kPanelOutputs + o] = static_cast<std::byte>(outputs[o].sc[g]);
    }
  }
  WriteNibbles(outputs, groups * kQuadsPerGroup, to + U6NibbleOffset(groups));
  for (size_t j = 0; j < groups * kQuadsPerGroup; j += 2) {
    for (size_t o = 0; o < 16; o++) {
      const auto high = [&](size_t output, size_t quad) {
        return (LoadQuad(outputs[output].q, quad) >> 4) & 0x03030303u;
      };
      StoreU32(to + U6HighOffset(groups) + j / 2 * kNibbleQuadBytes + 4 * o,
               high(o, j) | high(o + 16, j) << 2 | high(o, j + 1) << 4 | high(o + 16, j + 1) << 6);
    }
  }
}

// ---- One panel
// ----------------------------------------------------------------------------------------------------

const std::byte* RowOf(const PackSource& source, size_t output) {
  return source.rows + output * source.row_bytes;
}

void ReadAffine(const PackSource& source, size_t output, size_t block, size_t groups, int top,
                int shift, AffineBlock* out) {
  const auto type = static_cast<GgufType>(source.ggml_type);
  const std::byte* row = RowOf(source, output);
  if (type == GgufType::kQ4_K || type == GgufType::kQ5_K) {
    const bool five_bits = type == GgufType::kQ5_K;
    ReadQ45K(row + block * (five_bits ? 176 : 144), five_bits, out);
  } else {
    const size_t group_bytes = source.row_bytes / (source.depth / kGroupDepth);
    AffineGroup in[kGroupsPerBlock];
    for (size_t g = 0; g < groups; g++) {
      in[g] = ReadLegacyGroup(row + (block * kGroupsPerBlock + g) * group_bytes, type,
                              out->q + g * kGroupDepth);
    }
    QuantizeScales(in, groups, top, out);
  }
  NormalizeForFold(out, groups, top, shift);
}

void PackAffinePanel(const PackSource& source, PackedType type, size_t panel, std::byte* to) {
  const int shift = FoldShift(type), top = type == PackedType::kU4 ? 15 : 31;
  std::vector<AffineBlock> outputs(kPanelOutputs);
  for (size_t block = 0; block < BlocksFor(source.depth); block++) {
    const size_t groups = GroupsInBlock(source.depth, block);
    for (size_t o = 0; o < kPanelOutputs; o++) {
      const size_t output = panel * kPanelOutputs + o;
      outputs[o] = AffineBlock{};
      if (output < source.num_outputs)
        ReadAffine(source, output, block, groups, top, shift, &outputs[o]);
    }
    WriteAffineBlock(outputs.data(), type, groups, to);
    to += BlockBytes(type, groups);
  }
}

void PackSixBitPanel(const PackSource& source, size_t panel, std::byte* to) {
  const bool q3 = static_cast<GgufType>(source.ggml_type) == GgufType::kQ3_K;
  std::vector<SixBitBlock> outputs(kPanelOutputs);
  for (size_t block = 0; block < BlocksFor(source.depth); block++) {
    const size_t groups = GroupsInBlock(source.depth, block);
    for (size_t o = 0; o < kPanelOutputs; o++) {
      const size_t output = panel * kPanelOutputs + o;
      outputs[o] = SixBitBlock{};
      if (output >= source.num_outputs) continue;
      if (q3) {
        ReadQ3K(RowOf(source, output) + block * 110, &outputs[o]);
      } else {
        ReadQ6K(RowOf(source, output) + block * 210, &outputs[o]);
      }
    }
    WriteSixBitBlock(outputs.data(), groups, to);
    to += BlockBytes(PackedType::kU6, groups);
  }
}

void WriteS8Group(std::byte* to, size_t output, uint16_t d, const int8_t* q) {
  StoreU16(to + 2 * output, d);
  for (size_t j = 0; j < kQuadsPerGroup; j++) {
    uint32_t quad;
    std::memcpy(&quad, q + 4 * j, 4);
    StoreU32(to + kHalfRow + j * kByteQuadBytes + 4 * output, quad ^ 0x80808080u);
  }
}

// d = amax / 127, as Q8_0.
void QuantizeS8Group(const float* x, std::byte* to, size_t output) {
  float amax = 0;
  for (size_t i = 0; i < kGroupDepth; i++) amax = std::max(amax, std::fabs(x[i]));
  const uint16_t half = HalfAtLeastTiny(amax / 127.0f);
  const float d = HalfToFloat(half);
  int8_t q[kGroupDepth];
  for (size_t i = 0; i < kGroupDepth; i++) {
    const float v = d > 0 ? std::nearbyint(x[i] / d) : 0.0f;
    q[i] = static_cast<int8_t>(v >= -127.0f ? (v <= 127.0f ? v : 127.0f) : -127.0f);
  }
  WriteS8Group(to, output, half, q);
}

void PackS8Panel(const PackSource& source, size_t panel, std::byte* to) {
  const size_t groups = source.depth / kGroupDepth;
  std::vector<float> row(source.depth);
  const int8_t zeros[kGroupDepth] = {};
  for (size_t o = 0; o < kPanelOutputs; o++) {
    const size_t output = panel * kPanelOutputs + o;
    const bool exists = output < source.num_outputs;
    const bool is_q8 = static_cast<GgufType>(source.ggml_type) == GgufType::kQ8_0;
    if (exists && !is_q8) {
      source.dequantize(RowOf(source, output), row.data(), static_cast<int64_t>(source.depth));
    }
    for (size_t g = 0; g < groups; g++) {
      std::byte* group = to + g * kS8GroupBytes;
      if (!exists) {
        WriteS8Group(group, o, 0, zeros);
      } else if (is_q8) {
        const std::byte* block = RowOf(source, output) + g * 34;
        int8_t q[kGroupDepth];
        std::memcpy(q, block + 2, kGroupDepth);
        WriteS8Group(group, o, LoadU16(block), q);
      } else {
        QuantizeS8Group(row.data() + g * kGroupDepth, group, o);
      }
    }
  }
}

void PackFloatPanel(const PackSource& source, size_t element_bytes, size_t panel, std::byte* to) {
  for (size_t o = 0; o < kPanelOutputs; o++) {
    const size_t output = panel * kPanelOutputs + o;
    for (size_t k = 0; k < source.depth; k++) {
      std::byte* element = to + (k * kPanelOutputs + o) * element_bytes;
      if (output < source.num_outputs) {
        std::memcpy(element, RowOf(source, output) + k * element_bytes, element_bytes);
      } else {
        std::memset(element, 0, element_bytes);
      }
    }
  }
}

}  // namespace

const char* PackedTypeName(PackedType type) {
  switch (type) {
    case PackedType::kU4:
      return "u4";
    case PackedType::kU5:
      return "u5";
    case PackedType::kU6:
      return "u6";
    case PackedType::kS8:
      return "s8";
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
    bytes += BlockBytes(type, GroupsInBlock(depth, block));
  return bytes;
}

PackedType PackedTypeFor(int32_t ggml_type) {
  switch (static_cast<GgufType>(ggml_type)) {
    case GgufType::kF32:
      return PackedType::kF32;
    case GgufType::kF16:
      return PackedType::kF16;
    case GgufType::kBF16:
      return PackedType::kBF16;
    case GgufType::kQ4_0:
    case GgufType::kQ4_1:
    case GgufType::kQ4_K:
      return PackedType::kU4;
    case GgufType::kQ5_0:
    case GgufType::kQ5_1:
    case GgufType::kQ5_K:
      return PackedType::kU5;
    case GgufType::kQ3_K:
    case GgufType::kQ6_K:
      return PackedType::kU6;
    case GgufType::kQ8_0:
      return PackedType::kS8;
  }
  return PackedType::kS8;
}

void PackPanels(const PackSource& source, PackedType type, size_t panel_begin, size_t panel_end,
                std::byte* panels) {
  TRELLIS_CHECK(source.depth % kGroupDepth == 0);
  TRELLIS_CHECK(type == PackedTypeFor(source.ggml_type));
  const size_t panel_bytes = PanelBytes(type, source.depth);
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    std::byte* to = panels + panel * panel_bytes;
    switch (type) {
      case PackedType::kU4:
      case PackedType::kU5:
        PackAffinePanel(source, type, panel, to);
        break;
      case PackedType::kU6:
        PackSixBitPanel(source, panel, to);
        break;
      case PackedType::kS8:
        PackS8Panel(source, panel, to);
        break;
      case PackedType::kF16:
      case PackedType::kBF16:
        PackFloatPanel(source, 2, panel, to);
        break;
      case PackedType::kF32:
        PackFloatPanel(source, 4, panel, to);
        break;
    }
  }
}

}  // namespace trellis
