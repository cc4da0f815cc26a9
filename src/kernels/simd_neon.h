// One NEON vector of f32 (AArch64). Members as in simd_avx512.h.
#pragma once

#include <arm_neon.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace trellis {

struct SimdNeon {
  static constexpr size_t kLanes = 4;
  static constexpr int kTileRows = 4, kPairTileRows = 4, kAccumulators = 16;
  using F = float32x4_t;
  using I = int32x4_t;
  using Pairs = int16x8_t;

  static F Load(const float* p) { return vld1q_f32(p); }
  static void Store(float* p, F v) { vst1q_f32(p, v); }
  static F LoadHalf(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static void StoreHalf(uint16_t* p, F v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
  static F LoadBf16(const uint16_t* p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
  }
  static F Set(float v) { return vdupq_n_f32(v); }
  static F Add(F a, F b) { return vaddq_f32(a, b); }
  static F Sub(F a, F b) { return vsubq_f32(a, b); }
  static F Mul(F a, F b) { return vmulq_f32(a, b); }
  static F Div(F a, F b) { return vdivq_f32(a, b); }
  static F MulAdd(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F NegMulAdd(F a, F b, F c) { return vfmsq_f32(c, a, b); }
  static F Max(F a, F b) { return vmaxq_f32(a, b); }
  static F Min(F a, F b) { return vminq_f32(a, b); }
  static F Round(F v) { return vrndnq_f32(v); }
  static F MulPow2(F v, F n) {
    const int32x4_t biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vmulq_f32(v, vreinterpretq_f32_s32(vshlq_n_s32(biased, 23)));
  }
  static F IfGreaterEqual(F a, F b, F v) {
    return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(a, b), vreinterpretq_u32_f32(v)));
  }
  static I ZeroI() { return vdupq_n_s32(0); }
  static Pairs LoadPairs(const std::byte* p) {
    return vreinterpretq_s16_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
  }
  static void AddPairs(const int16_t* a, Pairs b, I& sum) {
    int32_t pair;
    std::memcpy(&pair, a, sizeof(pair));
    const int16x8_t pairs = vreinterpretq_s16_s32(vdupq_n_s32(pair));
    const int32x4_t low = vmull_s16(vget_low_s16(pairs), vget_low_s16(b));
    sum = vaddq_s32(sum, vpaddq_s32(low, vmull_high_s16(pairs, b)));
  }
  static void AddPairs(const int16_t* a, Pairs b0, Pairs b1, I& sum0, I& sum1) {
    AddPairs(a, b0, sum0);
    AddPairs(a, b1, sum1);
  }
  // A part is the even elements of a, or the odd ones: pairs of 16 bits, as b's are made.
  using ByteSum = I;
  static ByteSum StartBytes(int32_t sum) { return vdupq_n_s32(sum); }
  static I Total(ByteSum sum) { return sum; }
  template <int kPart>
  static Pairs LoadBytes(const std::byte* b) {
    const uint16x8_t bytes = vreinterpretq_u16_s16(LoadPairs(b));
    return vreinterpretq_s16_u16(kPart == 0 ? vandq_u16(bytes, vdupq_n_u16(0xff))
                                            : vshrq_n_u16(bytes, 8));
  }
  template <int kPart>
  static void AddBytes(const int16_t* part, Pairs b, ByteSum& sum) {
    AddPairs(part, b, sum);
  }
  template <int kPart>
  static void AddBytes(const int16_t* part, Pairs b0, Pairs b1, ByteSum& sum0, ByteSum& sum1) {
    AddPairs(part, b0, b1, sum0, sum1);
  }
  static void StoreParts(int16_t* to, size_t part_bytes, size_t i, F v) {
    auto* at = reinterpret_cast<std::byte*>(to) + i;
    const int16x4_t n = vqmovn_s32(vcvtnq_s32_f32(v));
    const int16x4_t evens = vuzp1_s16(n, n), odds = vuzp2_s16(n, n);
    std::memcpy(at, &evens, 4), std::memcpy(at + part_bytes, &odds, 4);
  }
  static int32_t PartsAt(const int16_t* a, size_t part_bytes, size_t i) {
    return a[i % 2 * part_bytes / sizeof(int16_t) + i / 2];
  }
  static F ToFloat(I v) { return vcvtq_f32_s32(v); }
  static void StoreInt16(int16_t* p, F v) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(v))); }
  static float Sum(F v) { return vaddvq_f32(v); }
  static float MaxOf(F v) { return vmaxvq_f32(v); }
  template <size_t kN, typename Op>
  static F OfEach(const F (&v)[kN], const Op& op) {
    static_assert(kN <= kLanes);
    const auto at = [&](size_t i) { return v[i < kN ? i : kN - 1]; };
    const auto halve = [&](F a, F b) { return op(vuzp1q_f32(a, b), vuzp2q_f32(a, b)); };
    return halve(halve(at(0), at(1)), halve(at(2), at(3)));
  }
};

}  // namespace trellis
