// NEON matmuls in the loops of matmul_blocked.h, over an instruction A that multiplies signed
// bytes. A block is unpacked to signed bytes, around zero where the type is, so that nothing is
// left to correct but mins. Internal to kernels/; for translation units compiled for one such
// instruction, each of which has its own copy.
//
// A::kOutputBytes: how many depths of one output lie together in an unpacked block, 4 or 8. Outputs
// follow one another, then the next depths; whichever it is, 16 depths are 4 * kByteQuadBytes.
// A::StoreQuads(to, v, even, odd) stores vector v of two quads, [4 outputs][4 depths], in that
// form. A::Multiply<kDepth, kRows>(w, values, stride, acc): acc = products of kDepth (16 or 32)
// depths.
#pragma once

#include <arm_neon.h>

#include <cstring>

#include "kernels/matmul_blocked.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// A tile is kRows <= 4 rows x 4 vectors of 4 outputs: 16 sums and what they are made of in 32
// registers; it takes two of them to cross a panel.
constexpr int kTileVectors = 4;
constexpr size_t kTileOutputs = 16;

inline const uint8_t* Bytes(const std::byte* p) {
  return reinterpret_cast<const uint8_t*>(p);
}
inline float32x4_t LoadHalves(const std::byte* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}
// Four signed bytes -> four lanes.
inline int32x4_t Load4(const std::byte* p) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bits)))));
}

// --- Unpacking one block to signed bytes, two quads at a time ---

// 16 where the bit is set: one byte for each of the 16 bits.
inline uint8x16_t BitsToSixteens(const std::byte* bits) {
  const uint8x16_t mask = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t spread = vcombine_u8(vdup_n_u8(Bytes(bits)[0]), vdup_n_u8(Bytes(bits)[1]));
  return vandq_u8(vtstq_u8(spread, mask), vdupq_n_u8(16));
}

// Quants of a quad, unsigned: outputs 4 * v .. of the low and of the high half of the panel.
template <bool kBit4>
inline void LoadQuants(const std::byte* nibbles, const std::byte* bits, size_t j, size_t v,
                       uint8x16_t* low, uint8x16_t* high) {
  const uint8x16_t packed = vld1q_u8(Bytes(nibbles) + j * kNibbleQuadBytes + 16 * v);
  *low = vandq_u8(packed, vdupq_n_u8(0x0f));
  *high = vshrq_n_u8(packed, 4);
  if constexpr (kBit4) {
    *low = vorrq_u8(*low, BitsToSixteens(bits + j * kBit4QuadBytes + 2 * v));
    *high = vorrq_u8(*high, BitsToSixteens(bits + j * kBit4QuadBytes + 8 + 2 * v));
  }
}

template <typename A, bool kBit4>
void UnpackNibbles(const std::byte* nibbles, const std::byte* bits, size_t quads, int zero_point,
                   int8_t* to) {
  const auto centred = [zero = vdupq_n_s8(static_cast<int8_t>(zero_point))](uint8x16_t x) {
    return vsubq_s8(vreinterpretq_s8_u8(x), zero);
  };
  for (size_t j = 0; j < quads; j += 2) {
    for (size_t v = 0; v < kTileVectors; v++) {
      uint8x16_t a0, a1, b0, b1;
      LoadQuants<kBit4>(nibbles, bits, j, v, &a0, &a1);
      LoadQuants<kBit4>(nibbles, bits, j + 1, v, &b0, &b1);
      A::StoreQuads(to, v, centred(a0), centred(b0));
      A::StoreQuads(to, v + kTileVectors, centred(a1), centred(b1));
    }
    to += 2 * kByteQuadBytes;
  }
}

template <typename A>
void UnpackBytes(const std::byte* bytes, size_t quads, int8_t* to) {
  const auto centred = [](uint8x16_t x) {
    return vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)));
  };
  for (size_t j = 0; j < quads; j += 2) {
    const uint8_t* q = Bytes(bytes) + j * kByteQuadBytes;
    for (size_t v = 0; v < 2 * kTileVectors; v++) {
      A::StoreQuads(to, v, centred(vld1q_u8(q + 16 * v)),
                    centred(vld1q_u8(q + kByteQuadBytes + 16 * v)));
    }
    to += 2 * kByteQuadBytes;
  }
}

template <typename A, PackedType kType>
void UnpackGroup(const std::byte* group, int8_t* to) {
  if constexpr (kType == PackedType::kQ8_0) {
    UnpackBytes<A>(group + GroupQuantOffset(kType), kQuadsPerGroup, to);
  } else {
    UnpackNibbles<A, HasBit4(kType)>(group + GroupQuantOffset(kType),
                                     group + GroupBit4Offset(kType), kQuadsPerGroup,
                                     HasGroupMin(kType) ? 0 : ZeroPoint(kType), to);
  }
}

template <typename A>
void UnpackSixBits(const std::byte* block, size_t groups, int8_t* to) {
  const std::byte* q = block + Q6NibbleOffset(groups);
  const std::byte* high = block + Q6HighOffset(groups);
  const auto join = [](uint8x16_t low, uint8x16_t h) {
    const uint8x16_t bits = vorrq_u8(low, vandq_u8(h, vdupq_n_u8(0x30)));
    return vsubq_s8(vreinterpretq_s8_u8(bits), vdupq_n_s8(32));
  };
  for (size_t j = 0; j < groups * kQuadsPerGroup; j += 2) {
    for (size_t v = 0; v < kTileVectors; v++) {
      uint8x16_t a0, a1, b0, b1;
      LoadQuants<false>(q, nullptr, 0, v, &a0, &a1);
      LoadQuants<false>(q, nullptr, 1, v, &b0, &b1);
      const uint8x16_t h = vld1q_u8(Bytes(high) + 16 * v);
      A::StoreQuads(to, v, join(a0, vshlq_n_u8(h, 4)), join(b0, h));
      A::StoreQuads(to, v + kTileVectors, join(a1, vshlq_n_u8(h, 2)), join(b1, vshrq_n_u8(h, 2)));
    }
    q += 2 * kNibbleQuadBytes;
    high += kNibbleQuadBytes;
    to += 2 * kByteQuadBytes;
  }
}

// --- Tiles: kRows rows x 16 outputs, one block ---

template <int kRows>
using Ints = int32x4_t[kRows][kTileVectors];
template <int kRows>
using Floats = float32x4_t[kRows][kTileVectors];

template <int kRows>
inline void Clear(Ints<kRows>& acc) {
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++) acc[r][i] = vdupq_n_s32(0);
  }
}

// out += d x scale of the row x acc.
template <int kRows>
inline void AddScaled(const std::byte* d, const TileRows& rows, size_t scale,
                      const Ints<kRows>& acc, Floats<kRows>& out) {
  float32x4_t dv[kTileVectors];
  TRELLIS_UNROLL
  for (int i = 0; i < kTileVectors; i++) dv[i] = LoadHalves(d + 8 * i);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const float s = rows.scales[static_cast<size_t>(r) * rows.scale_stride + scale];
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++)
      out[r][i] = vfmaq_f32(out[r][i], vcvtq_f32_s32(acc[r][i]), vmulq_n_f32(dv[i], s));
  }
}

template <typename A, PackedType kType, int kRows>
inline void GroupedBlock(const int8_t* w, const std::byte* block, size_t groups, size_t output,
                         const TileRows& rows, Floats<kRows>& out) {
  for (size_t g = 0; g < groups; g++) {
    Ints<kRows> acc;
    A::template Multiply<kGroupDepth, kRows>(w, rows.values + g * kGroupDepth, rows.value_stride,
                                             acc);
    w += kQuadsPerGroup * kByteQuadBytes;
    AddScaled<kRows>(block + 2 * output, rows, g, acc, out);
    if constexpr (HasGroupMin(kType)) {
      TRELLIS_UNROLL
      for (int i = 0; i < kTileVectors; i++) {
        const float32x4_t m = LoadHalves(block + kHalfRow + 2 * output + 8 * i);
        TRELLIS_UNROLL
        for (int r = 0; r < kRows; r++) {
          const float sum = rows.scaled_sums[static_cast<size_t>(r) * rows.scale_stride + g];
          out[r][i] = vfmaq_n_f32(out[r][i], m, sum);
        }
      }
    }
    block += GroupBytes(kType);
  }
}

template <typename A, int kRows>
inline void AffineBlock(const int8_t* w, const std::byte* block, size_t output,
                        const TileRows& rows, Floats<kRows>& out) {
  Ints<kRows> total, mins;
  Clear<kRows>(total);
  Clear<kRows>(mins);
  for (size_t g = 0; g < kGroupsPerBlock; g++) {
    Ints<kRows> acc;
    A::template Multiply<kGroupDepth, kRows>(w, rows.values + g * kGroupDepth, rows.value_stride,
                                             acc);
    w += kQuadsPerGroup * kByteQuadBytes;
    const size_t at = g * kPanelOutputs + output;
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++) {
      const int32x4_t sc = Load4(block + ScOffset() + at + 4 * i),
                      m = Load4(block + MinOffset(kGroupsPerBlock) + at + 4 * i);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        total[r][i] = vmlaq_s32(total[r][i], acc[r][i], sc);
        const int32_t sum = rows.group_sums[static_cast<size_t>(r) * rows.group_stride + g];
        mins[r][i] = vmlaq_n_s32(mins[r][i], m, -sum);
      }
    }
  }
  AddScaled<kRows>(block + 2 * output, rows, 0, total, out);
  AddScaled<kRows>(block + DminOffset() + 2 * output, rows, 0, mins, out);
}

template <typename A, int kRows>
inline void SixBitBlock(const int8_t* w, const std::byte* block, size_t output,
                        const TileRows& rows, Floats<kRows>& out) {
  Ints<kRows> total;
  Clear<kRows>(total);
  const std::byte* sc = block + Q6ScOffset() + output;
  for (size_t h = 0; h < 2 * kGroupsPerBlock; h++) {
    Ints<kRows> acc;
    A::template Multiply<16, kRows>(w, rows.values + 16 * h, rows.value_stride, acc);
    w += 4 * kByteQuadBytes;
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++) {
      const int32x4_t scale = Load4(sc + h * kPanelOutputs + 4 * i);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) total[r][i] = vmlaq_s32(total[r][i], acc[r][i], scale);
    }
  }
  AddScaled<kRows>(block + 2 * output, rows, 0, total, out);
}

template <PackedType kType>
inline float32x4_t LoadWeights(const std::byte* p) {
  if constexpr (kType == PackedType::kF32) return vld1q_f32(reinterpret_cast<const float*>(p));
  if constexpr (kType == PackedType::kF16) return LoadHalves(p);
  const uint16x4_t half = vld1_u16(reinterpret_cast<const uint16_t*>(p));
  return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

template <PackedType kType, int kRows>
inline void FloatBlock(const std::byte* block, size_t groups, size_t output, const float* x,
                       size_t x_stride, Floats<kRows>& out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    float32x4_t w[kTileVectors];
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++)
      w[i] = LoadWeights<kType>(block + (k * kPanelOutputs + output + 4 * i) * kElement);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const float v = x[static_cast<size_t>(r) * x_stride + k];
      TRELLIS_UNROLL
      for (int i = 0; i < kTileVectors; i++) out[r][i] = vfmaq_n_f32(out[r][i], w[i], v);
    }
  }
}

template <typename A>
struct NeonMatmul {
  static constexpr int kTileRows = 4;
  static constexpr size_t DirectRows(PackedType) { return 0; }

  template <PackedType kType>
  static void Unpack(const std::byte* block, size_t groups, std::byte* unpacked) {
    int8_t* to = reinterpret_cast<int8_t*>(unpacked);
    if constexpr (kType == PackedType::kQ6_K) {
      UnpackSixBits<A>(block, groups, to);
    } else if constexpr (FormFor(kType) == ActivationForm::kPerBlock) {
      UnpackNibbles<A, HasBit4(kType)>(block + NibbleOffset(groups), block + Bit4Offset(groups),
                                       groups * kQuadsPerGroup, 0, to);
    } else {
      for (size_t g = 0; g < groups; g++) {
        UnpackGroup<A, kType>(block + g * GroupBytes(kType),
                              to + g * kQuadsPerGroup * kByteQuadBytes);
      }
    }
  }

  // Not inlined: registers are for this alone.
  template <PackedType kType, int kRows>
  [[gnu::noinline]] static void Tile(const TileInput& in, float* sums) {
    for (size_t output = 0; output < kPanelOutputs; output += kTileOutputs) {
      Floats<kRows> out;
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < kTileVectors; i++)
          out[r][i] =
              in.is_first ? vdupq_n_f32(0) : vld1q_f32(sums + r * kPanelOutputs + output + 4 * i);
      }
      const int8_t* w = reinterpret_cast<const int8_t*>(in.unpacked) + A::kOutputBytes * output;
      if constexpr (FormFor(kType) == ActivationForm::kF32) {
        FloatBlock<kType, kRows>(in.block, in.groups, output, in.x, in.x_stride, out);
      } else if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
        GroupedBlock<A, kType, kRows>(w, in.block, in.groups, output, in.rows, out);
      } else if constexpr (kType == PackedType::kQ6_K) {
        SixBitBlock<A, kRows>(w, in.block, output, in.rows, out);
      } else {
        AffineBlock<A, kRows>(w, in.block, output, in.rows, out);
      }
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < kTileVectors; i++)
          vst1q_f32(sums + r * kPanelOutputs + output + 4 * i, out[r][i]);
      }
    }
  }
};

}  // namespace
}  // namespace trellis
