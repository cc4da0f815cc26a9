// One AVX-512 vector of f32, for the templates in attention-inl.h and ops-inl.h. Every simd_*.h has
// the same members.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace trellis {

struct SimdAvx512 {
  static constexpr size_t kLanes = 16;
  // Register tiles of attention: queries at most, of them with pages of i16, and vectors of
  // accumulators at most.
  static constexpr int kTileRows = 6, kPairTileRows = 12, kAccumulators = 24;
  using F = __m512;
  using I = __m512i;      // kLanes integers of 32 bits
  using Pairs = __m512i;  // kLanes pairs of 16 bits

  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static F LoadHalf(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F LoadBf16(const uint16_t* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F Set(float v) { return _mm512_set1_ps(v); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F MulAdd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }      // a * b + c
  static F NegMulAdd(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Round(F v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  // v * 2^n for integral n in [-126, 127]; 0 for n = -127.
  static F MulPow2(F v, F n) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, Set(-126.0f), _CMP_GE_OQ), v, n);
  }
  // v where a >= b, else 0.
  static F IfGreaterEqual(F a, F b, F v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), v);
  }
  static I ZeroI() { return _mm512_setzero_si512(); }
  static Pairs LoadPairs(const std::byte* p) { return _mm512_loadu_si512(p); }
  // sum[i] += a[0] * b[2 i] + a[1] * b[2 i + 1]; with one vector of b, or with two. In assembly, as
  // g++ 12 copies and spills the sums of the intrinsic; the pair is broadcast to a register, as a
  // product that broadcasts from memory itself runs at three quarters of the speed on Zen 5.
  static void AddPairs(const int16_t* a, Pairs b, I& sum) { AddProducts(Broadcast(a), b, sum); }
  static void AddPairs(const int16_t* a, Pairs b0, Pairs b1, I& sum0, I& sum1) {
    const Pairs pair = Broadcast(a);
    AddProducts(pair, b0, sum0);
    AddProducts(pair, b1, sum1);
  }
  // Sums of a[0] * b[4 i] + .. + a[3] * b[4 i + 3], of integers a of 16 bits and unsigned bytes b,
  // modulo 2^32. They are made in two parts, for each of which a has 4 bytes: here of its low
  // bytes, signed, and of the high ones, which products of bytes multiply by b as it lies.
  struct ByteSum {
    I low, high;
  };
  static ByteSum StartBytes(int32_t sum) { return {_mm512_set1_epi32(sum), ZeroI()}; }
  static I Total(const ByteSum& sum) {
    return _mm512_add_epi32(sum.low, _mm512_slli_epi32(sum.high, 8));
  }
  template <int kPart>
  static Pairs LoadBytes(const std::byte* b) {
    return LoadPairs(b);
  }
  template <int kPart>
  static void AddBytes(const int16_t* part, Pairs b, ByteSum& sum) {
    AddByteProducts(Broadcast(part), b, kPart == 0 ? sum.low : sum.high);
  }
  template <int kPart>
  static void AddBytes(const int16_t* part, Pairs b0, Pairs b1, ByteSum& sum0, ByteSum& sum1) {
    const Pairs bytes = Broadcast(part);
    AddByteProducts(bytes, b0, kPart == 0 ? sum0.low : sum0.high);
    AddByteProducts(bytes, b1, kPart == 0 ? sum1.low : sum1.high);
  }
  // Elements i .. of a, integral, of which the largest may be 127 * 256 + 127: the parts of every
  // four at byte i of `to`, and part_bytes behind.
  static void StoreParts(int16_t* to, size_t part_bytes, size_t i, F v) {
    auto* at = reinterpret_cast<std::byte*>(to) + i;
    const I n = _mm512_cvtps_epi32(v);
    const I high = _mm512_srai_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(128)), 8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm512_cvtepi32_epi8(n));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at + part_bytes), _mm512_cvtepi32_epi8(high));
  }
  // Element i of a.
  static int32_t PartsAt(const int16_t* a, size_t part_bytes, size_t i) {
    const auto* low = reinterpret_cast<const int8_t*>(a) + i;
    return low[part_bytes] * 256 + low[0];
  }
  static F ToFloat(I v) { return _mm512_cvtepi32_ps(v); }
  // Rounded to nearest even; what no int16 can hold is the nearest that there is.
  static void StoreInt16(int16_t* p, F v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v)));
  }
  static float Sum(F v) { return _mm512_reduce_add_ps(v); }
  static float MaxOf(F v) { return _mm512_reduce_max_ps(v); }
  // Lane i: what `op`, a sum or a maximum, makes of the lanes of v[i]; the same tree for each,
  // which may be another than Sum()'s.
  template <size_t kN, typename Op>
  static F OfEach(const F (&v)[kN], const Op& op) {
    static_assert(kN <= 16);
    const auto at = [&](size_t i) { return v[i < kN ? i : kN - 1]; };
    const auto two = [&](size_t i) {  // of 4 lanes each: v[i], v[i + 1] by turns
      return op(_mm512_unpacklo_ps(at(i), at(i + 1)), _mm512_unpackhi_ps(at(i), at(i + 1)));
    };
    const auto four = [&](size_t i) {
      const F low = two(i), high = two(i + 2);
      return op(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    };
    // Fours of lanes: low 0, 2, high 0, 2 with low 1, 3, high 1, 3; then neighbours.
    const auto eight = [&](size_t i) {
      const F low = four(i), high = kN > i + 4 ? four(i + 4) : low;
      return op(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
    };
    const F first = eight(0), second = kN > 8 ? eight(8) : first;
    return op(_mm512_shuffle_f32x4(first, second, 0x88), _mm512_shuffle_f32x4(first, second, 0xdd));
  }

 private:
  static Pairs Broadcast(const int16_t* a) {
    using Pair [[gnu::may_alias]] = int32_t;
    Pairs pair;
    asm("vpbroadcastd %1, %0" : "=v"(pair) : "m"(*reinterpret_cast<const Pair*>(a)));
    return pair;
  }
  static void AddProducts(Pairs a, Pairs b, I& sum) {
    asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  static void AddByteProducts(Pairs a, Pairs b, I& sum) {  // b unsigned
    asm("vpdpbusd %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

}  // namespace trellis
