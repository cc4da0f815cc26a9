// One AVX2 vector of f32 (with FMA and F16C). Members as in simd_avx512.h.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace trellis {

struct SimdAvx2 {
  static constexpr size_t kLanes = 8;
  static constexpr int kTileRows = 6, kPairTileRows = 6, kAccumulators = 12;
  using F = __m256;
  using I = __m256i;      // kLanes integers of 32 bits
  using Pairs = __m256i;  // kLanes pairs of 16 bits

  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static F LoadHalf(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void StoreHalf(uint16_t* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F LoadBf16(const uint16_t* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F Set(float v) { return _mm256_set1_ps(v); }
  static F Add(F a, F b) { return _mm256_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm256_div_ps(a, b); }
  static F MulAdd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F NegMulAdd(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Round(F v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F MulPow2(F v, F n) {
    const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(v, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
  }
  static F IfGreaterEqual(F a, F b, F v) {
    return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ), v);
  }
  static I ZeroI() { return _mm256_setzero_si256(); }
  static Pairs LoadPairs(const std::byte* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  // Assembly because order counts, as in matmul_avx2.cc: g++ spills what it does not keep apart,
  // and a product that its own sum follows at once takes the unit that the next product needs.
  static void AddPairs(const int16_t* a, Pairs b0, Pairs b1, I& sum0, I& sum1) {
    __m256i t0, t1;
    asm("vpbroadcastd %[a], %[t0]\n\t"
        "vpmaddwd %[t0], %[b0], %[t1]\n\t"
        "vpmaddwd %[t0], %[b1], %[t0]\n\t"
        "vpaddd %[t1], %[s0], %[s0]\n\t"
        "vpaddd %[t0], %[s1], %[s1]"
        : [s0] "+x"(sum0), [s1] "+x"(sum1), [t0] "=&x"(t0), [t1] "=&x"(t1)
        : [a] "m"(*reinterpret_cast<const Pair*>(a)), [b0] "x"(b0), [b1] "x"(b1));
  }
  static void AddPairs(const int16_t* a, Pairs b, I& sum) {
    int32_t pair;
    std::memcpy(&pair, a, sizeof(pair));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_set1_epi32(pair), b));
  }
  // A part is the even elements of a, or the odd ones: pairs of 16 bits, as b's are made.
  using ByteSum = I;
  static ByteSum StartBytes(int32_t sum) { return _mm256_set1_epi32(sum); }
  static I Total(ByteSum sum) { return sum; }
  template <int kPart>
  static Pairs LoadBytes(const std::byte* b) {
    const Pairs bytes = LoadPairs(b);
    return kPart == 0 ? _mm256_and_si256(bytes, _mm256_set1_epi16(0xff))
                      : _mm256_srli_epi16(bytes, 8);
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
    const __m128i evens_odds = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
    const __m128i parts = _mm_shuffle_epi8(ToInt16(v), evens_odds);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(at), parts);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(at + part_bytes), _mm_unpackhi_epi64(parts, parts));
  }
  static int32_t PartsAt(const int16_t* a, size_t part_bytes, size_t i) {
    return a[i % 2 * part_bytes / sizeof(int16_t) + i / 2];
  }
  static F ToFloat(I v) { return _mm256_cvtepi32_ps(v); }
  static void StoreInt16(int16_t* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), ToInt16(v));
  }
  static float Sum(F v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps(x, x, 1)));
  }
  static float MaxOf(F v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps(x, x, 1)));
  }
  template <size_t kN, typename Op>
  static F OfEach(const F (&v)[kN], const Op& op) {
    static_assert(kN <= kLanes);
    const auto at = [&](size_t i) { return v[i < kN ? i : kN - 1]; };
    const auto two = [&](size_t i) {  // of 4 lanes each: v[i], v[i + 1] by turns
      return op(_mm256_unpacklo_ps(at(i), at(i + 1)), _mm256_unpackhi_ps(at(i), at(i + 1)));
    };
    const auto four = [&](size_t i) {
      const F low = two(i), high = two(i + 2);
      return op(_mm256_shuffle_ps(low, high, 0x44), _mm256_shuffle_ps(low, high, 0xee));
    };
    const F low = four(0), high = kN > 4 ? four(4) : low;
    return op(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
  }

 private:
  static __m128i ToInt16(F v) {
    const __m256i n = _mm256_cvtps_epi32(v);
    return _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
  }
  struct [[gnu::may_alias]] Pair {
    int16_t values[2];
  };
};

}  // namespace trellis
