// How AVX-512 reads packed weights: a quad as unsigned bytes of outputs 0..15 and 16..31. Internal
// to kernels/.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/packed_format.h"

namespace trellis {
namespace {

using namespace packed;

// The four bytes at p in every lane. A product that broadcasts them from memory itself runs at
// three quarters of the speed on Zen 5.
inline __m512i Broadcast(const void* p) {
  using Four [[gnu::may_alias]] = int32_t;
  __m512i v;
  asm("vpbroadcastd %1, %0" : "=v"(v) : "m"(*static_cast<const Four*>(p)));
  return v;
}

// Pairs of 16 bits: the low halves of the lanes of `first` and of `second`.
inline __m512i Interleave(__m512i first, __m512i second) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, first, _mm512_slli_epi32(second, 16));
}

inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline __m128i LoadSixteen(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

struct ByteQuads {
  const std::byte* q;

  template <int kQuad>
  void Load(__m512i (&w)[2]) const {
    w[0] = _mm512_loadu_si512(q + kQuad * kByteQuadBytes);
    w[1] = _mm512_loadu_si512(q + kQuad * kByteQuadBytes + 64);
  }
};

template <bool kBit4>
struct NibbleQuads {
  const std::byte* q;
  const std::byte* bits;  // kBit4: the fifth ones

  template <int kQuad>
  void Load(__m512i (&w)[2]) const {
    const __m512i nibbles = _mm512_set1_epi8(0x0f);
    const __m512i v = _mm512_loadu_si512(q + kQuad * kNibbleQuadBytes);
    w[0] = _mm512_and_si512(v, nibbles);
    w[1] = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibbles);
    if constexpr (kBit4) {
      uint64_t words[2];
      std::memcpy(words, bits + kQuad * kBit4QuadBytes, sizeof(words));
      const __m512i bit4 = _mm512_set1_epi8(16);
      w[0] = _mm512_mask_add_epi8(w[0], words[0], w[0], bit4);
      w[1] = _mm512_mask_add_epi8(w[1], words[1], w[1], bit4);
    }
  }
};

struct SixBitQuads {
  const std::byte* q;
  const std::byte* high;

  template <int kQuad>
  void Load(__m512i (&w)[2]) const {
    const __m512i nibbles = _mm512_set1_epi8(0x0f);
    const __m512i v = _mm512_loadu_si512(q + kQuad * kNibbleQuadBytes);
    const __m512i h = _mm512_loadu_si512(high + kQuad / 2 * kNibbleQuadBytes);
    const auto join = [&](__m512i low, __m512i bits) {  // bits 0..3, bits 4 and 5
      return _mm512_ternarylogic_epi32(_mm512_and_si512(low, nibbles), bits, _mm512_set1_epi8(0x30),
                                       0xf8);  // a | (b & c)
    };
    if constexpr (kQuad % 2 == 0) {
      w[0] = join(v, _mm512_slli_epi16(h, 4));
      w[1] = join(_mm512_srli_epi16(v, 4), _mm512_slli_epi16(h, 2));
    } else {
      w[0] = join(v, h);
      w[1] = join(_mm512_srli_epi16(v, 4), _mm512_srli_epi16(h, 2));
    }
  }
};

}  // namespace
}  // namespace trellis
