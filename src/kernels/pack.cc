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

// One output's part of a group of the types with f16 scales per group.
struct Group {
  uint8_t q[kGroupDepth];
  uint16_t d = 0, m = 0;  // f16
};

// One output's part of a block of kQ4_K or kQ5_K.
struct AffineBlock {
  uint8_t q[kBlockDepth];
  uint16_t d = 0, dmin = 0;  // f16
  uint8_t sc[kGroupsPerBlock] = {};
  uint8_t m[kGroupsPerBlock] = {};
};

// One output's part of a kQ6_K block.
struct SixBitBlock {
  uint8_t q[kBlockDepth];
  uint16_t d = 0;
  int8_t sc[2 * kGroupsPerBlock] = {};
};

// --- Readers of ggml's blocks (ggml-common.h) ---

// Scale `i` and min `i` (6 bits each) out of the 12 bytes that Q4_K and Q5_K share.
void ReadKScale(const std::byte* s, size_t i, uint8_t* scale, uint8_t* min) {
  if (i < 4) {
    *scale = U8(s, i) & 63;
    *min = static_cast<uint8_t>(U8(s, i + 4) & 63);
  } else {
    *scale = static_cast<uint8_t>((U8(s, i + 4) & 15) | (U8(s, i - 4) >> 6) << 4);
    *min = static_cast<uint8_t>((U8(s, i + 4) >> 4) | (U8(s, i) >> 6) << 4);
  }
}

// block_q4_K { f16 d, dmin; u8 scales[12]; u8 qs[128] };  block_q5_K has u8 qh[32] before qs.
void ReadQ45K(const std::byte* block, PackedType type, AffineBlock* out) {
  const bool five_bits = HasBit4(type);
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

// block_q4_0 { f16 d; u8 qs[16] }, q4_1 { f16 d, m; qs }, q5_0 { f16 d; u32 qh; qs }, q5_1 { f16 d,
// m; u32 qh; qs }
void ReadGroup(const std::byte* block, PackedType type, Group* out) {
  out->d = LoadU16(block);
  const std::byte* p = block + 2;
  if (HasGroupMin(type)) {
    out->m = LoadU16(p);
    p += 2;
  }
  uint32_t high = 0;
  if (HasBit4(type)) {
    std::memcpy(&high, p, 4);
    p += 4;
  }
  for (size_t i = 0; i < 16; i++) {
    out->q[i] = static_cast<uint8_t>((U8(p, i) & 15) | ((high >> i) & 1) << 4);
    out->q[16 + i] = static_cast<uint8_t>((U8(p, i) >> 4) | ((high >> (16 + i)) & 1) << 4);
  }
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

// --- Writers of packed blocks ---

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

template <typename Block>
void WriteBit4(const Block* outputs, size_t num_quads, std::byte* to) {
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

void WriteGroup(const Group* outputs, PackedType type, std::byte* to) {
  for (size_t o = 0; o < kPanelOutputs; o++) {
    StoreU16(to + 2 * o, outputs[o].d);
    if (HasGroupMin(type)) StoreU16(to + kHalfRow + 2 * o, outputs[o].m);
  }
  WriteNibbles(outputs, kQuadsPerGroup, to + GroupQuantOffset(type));
  if (HasBit4(type)) WriteBit4(outputs, kQuadsPerGroup, to + GroupBit4Offset(type));
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
  if (HasBit4(type)) WriteBit4(outputs, groups * kQuadsPerGroup, to + Bit4Offset(groups));
}

void WriteSixBitBlock(const SixBitBlock* outputs, size_t groups, std::byte* to) {
  for (size_t o = 0; o < kPanelOutputs; o++) {
    StoreU16(to + 2 * o, outputs[o].d);
    for (size_t g = 0; g < 2 * groups; g++) {
      to[Q6ScOffset() + g * kPanelOutputs + o] = static_cast<std::byte>(outputs[o].sc[g]);
    }
  }
  WriteNibbles(outputs, groups * kQuadsPerGroup, to + Q6NibbleOffset(groups));
  for (size_t j = 0; j < groups * kQuadsPerGroup; j += 2) {
    for (size_t o = 0; o < 16; o++) {
      const auto high = [&](size_t output, size_t quad) {
        return (LoadQuad(outputs[output].q, quad) >> 4) & 0x03030303u;
      };
      StoreU32(to + Q6HighOffset(groups) + j / 2 * kNibbleQuadBytes + 4 * o,
               high(o, j) | high(o + 16, j) << 2 | high(o, j + 1) << 4 | high(o + 16, j + 1) << 6);
    }
  }
}

// --- One panel ---

const std::byte* RowOf(const PackSource& source, size_t output) {
  return source.rows + output * source.row_bytes;
}

void PackGroupPanel(const PackSource& source, PackedType type, size_t panel, std::byte* to) {
  const size_t groups = source.depth / kGroupDepth, group_bytes = source.row_bytes / groups;
  Group outputs[kPanelOutputs];
  for (size_t g = 0; g < groups; g++) {
    for (size_t o = 0; o < kPanelOutputs; o++) {
      const size_t output = panel * kPanelOutputs + o;
      outputs[o] = Group{};
      if (output < source.num_outputs)
        ReadGroup(RowOf(source, output) + g * group_bytes, type, &outputs[o]);
    }
    WriteGroup(outputs, type, to);
    to += GroupBytes(type);
  }
}

void PackAffinePanel(const PackSource& source, PackedType type, size_t panel, std::byte* to) {
  const size_t blocks = BlocksFor(source.depth), block_bytes = source.row_bytes / blocks;
  std::vector<AffineBlock> outputs(kPanelOutputs);
  for (size_t block = 0; block < blocks; block++) {
    for (size_t o = 0; o < kPanelOutputs; o++) {
      const size_t output = panel * kPanelOutputs + o;
      outputs[o] = AffineBlock{};
      if (output < source.num_outputs)
        ReadQ45K(RowOf(source, output) + block * block_bytes, type, &outputs[o]);
    }
    WriteAffineBlock(outputs.data(), type, kGroupsPerBlock, to);
    to += BlockBytes(type, kGroupsPerBlock);
  }
}

void PackSixBitPanel(const PackSource& source, size_t panel, std::byte* to) {
  const bool q3 = static_cast<GgufType>(source.ggml_type) == GgufType::kQ3_K;
  const size_t blocks = BlocksFor(source.depth), block_bytes = source.row_bytes / blocks;
  std::vector<SixBitBlock> outputs(kPanelOutputs);
  for (size_t block = 0; block < blocks; block++) {
    for (size_t o = 0; o < kPanelOutputs; o++) {
      const size_t output = panel * kPanelOutputs + o;
      outputs[o] = SixBitBlock{};
      if (output >= source.num_outputs) continue;
      const std::byte* in = RowOf(source, output) + block * block_bytes;
      if (q3) {
        ReadQ3K(in, &outputs[o]);
      } else {
        ReadQ6K(in, &outputs[o]);
      }
    }
    WriteSixBitBlock(outputs.data(), kGroupsPerBlock, to);
    to += BlockBytes(PackedType::kQ6_K, kGroupsPerBlock);
  }
}

// One output's part of a kQ8_0 group.
struct ByteGroup {
  int8_t q[kGroupDepth] = {};
  uint16_t d = 0;
};

// Codes of block_iq4_nl { f16 d; u8 qs[16] } and of block_mxfp4 { u8 e; u8 qs[16] }, whose codes
// are of the E2M1 values doubled, under 2^(e - 128) (OCP Microscaling Formats 1.0).
constexpr int8_t kIq4NlCodes[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};
constexpr int8_t kMxfp4Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

constexpr float kMaxHalf = 65504;

void ReadCodes(const std::byte* qs, const int8_t (&codes)[16], ByteGroup* out) {
  for (size_t i = 0; i < 16; i++) {
    out->q[i] = codes[U8(qs, i) & 15];
    out->q[16 + i] = codes[U8(qs, i) >> 4];
  }
}

// d = amax / 127, as Q8_0.
ByteGroup QuantizeGroup(const float* x) {
  ByteGroup group;
  float amax = 0;
  for (size_t i = 0; i < kGroupDepth; i++) amax = std::max(amax, std::fabs(x[i]));
  group.d = FloatToHalf(amax / 127.0f);
  if (amax > 0 && group.d == 0) group.d = 1;
  const float d = HalfToFloat(group.d);
  for (size_t i = 0; i < kGroupDepth; i++) {
    const float v = d > 0 ? std::nearbyint(x[i] / d) : 0.0f;
    group.q[i] = static_cast<int8_t>(v >= -127.0f ? (v <= 127.0f ? v : 127.0f) : -127.0f);
  }
  return group;
}

// A group of the types that need no other quants.
ByteGroup ReadByteGroup(GgufType type, const std::byte* block) {
  ByteGroup group;
  if (type == GgufType::kQ8_0) {
    group.d = LoadU16(block);
    std::memcpy(group.q, block + 2, kGroupDepth);
  } else if (type == GgufType::kIQ4_NL) {
    group.d = LoadU16(block);
    ReadCodes(block + 2, kIq4NlCodes, &group);
  } else {
    // Below f16 a weight is as good as zero, above it is no weight of a model.
    group.d = FloatToHalf(std::min(std::ldexp(1.0f, U8(block, 0) - 128), kMaxHalf));
    ReadCodes(block + 1, kMxfp4Codes, &group);
  }
  return group;
}

void PackBytePanel(const PackSource& source, size_t panel, std::byte* to) {
  const auto type = static_cast<GgufType>(source.ggml_type);
  const bool is_exact =
      type == GgufType::kQ8_0 || type == GgufType::kIQ4_NL || type == GgufType::kMXFP4;
  const size_t groups = source.depth / kGroupDepth;
  std::vector<float> values(is_exact ? 0 : source.depth);
  for (size_t o = 0; o < kPanelOutputs; o++) {
    const size_t output = panel * kPanelOutputs + o;
    const bool exists = output < source.num_outputs;
    if (exists && !is_exact)
      source.dequantize(RowOf(source, output), values.data(), static_cast<int64_t>(source.depth));
    for (size_t g = 0; g < groups; g++) {
      std::byte* group = to + g * GroupBytes(PackedType::kQ8_0);
      ByteGroup in;
      if (exists) {
        in = is_exact ? ReadByteGroup(type, RowOf(source, output) + g * (source.row_bytes / groups))
                      : QuantizeGroup(values.data() + g * kGroupDepth);
      }
      StoreU16(group + 2 * o, in.d);
      for (size_t j = 0; j < kQuadsPerGroup; j++) {
        uint32_t quad;
        std::memcpy(&quad, in.q + 4 * j, 4);
        StoreU32(group + kHalfRow + j * kByteQuadBytes + 4 * o, quad ^ 0x80808080u);
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

PackedType PackedTypeFor(int32_t ggml_type) {
  switch (static_cast<GgufType>(ggml_type)) {
    case GgufType::kF32:
      return PackedType::kF32;
    case GgufType::kF16:
      return PackedType::kF16;
    case GgufType::kBF16:
      return PackedType::kBF16;
    case GgufType::kQ4_0:
      return PackedType::kQ4_0;
    case GgufType::kQ4_1:
      return PackedType::kQ4_1;
    case GgufType::kQ5_0:
      return PackedType::kQ5_0;
    case GgufType::kQ5_1:
      return PackedType::kQ5_1;
    case GgufType::kQ4_K:
      return PackedType::kQ4_K;
    case GgufType::kQ5_K:
      return PackedType::kQ5_K;
    case GgufType::kQ3_K:
    case GgufType::kQ6_K:
      return PackedType::kQ6_K;
    case GgufType::kQ8_0:
    case GgufType::kIQ4_NL:
    case GgufType::kMXFP4:
      return PackedType::kQ8_0;
  }
  return PackedType::kQ8_0;
}

void PackPanels(const PackSource& source, PackedType type, size_t panel_begin, size_t panel_end,
                std::byte* panels) {
  const bool per_block = FormFor(type) == ActivationForm::kPerBlock;
  TRELLIS_CHECK(source.depth % (per_block ? kBlockDepth : kGroupDepth) == 0);
  TRELLIS_CHECK(type == PackedTypeFor(source.ggml_type));
  const size_t panel_bytes = PanelBytes(type, source.depth);
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    std::byte* to = panels + panel * panel_bytes;
    switch (type) {
      case PackedType::kQ4_0:
      case PackedType::kQ4_1:
      case PackedType::kQ5_0:
      case PackedType::kQ5_1:
        PackGroupPanel(source, type, panel, to);
        break;
      case PackedType::kQ8_0:
        PackBytePanel(source, panel, to);
        break;
      case PackedType::kQ4_K:
      case PackedType::kQ5_K:
        PackAffinePanel(source, type, panel, to);
        break;
      case PackedType::kQ6_K:
        PackSixBitPanel(source, panel, to);
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
