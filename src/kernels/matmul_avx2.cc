// AVX2 without dot-product instructions.
//
// ARITHMETIC. vpmaddubsw multiplies unsigned weights by signed activations and leaves sums of two
// in 16 bits. There more of them are added while they must fit (4 bits: 8 x 2 x 15 x 127 < 2^15,
// so a whole group of 32; 5 bits: half of one; 6 bits: a quarter) before vpmaddwd widens them; for
// K-types it multiplies by the integer scale at the same time, so these are read exactly and a
// block needs one conversion to f32. 8-bit weights and their activations are multiplied in 16 bits.
#if defined(__x86_64__)

#include <type_traits>

#include "kernels/kernels_internal.h"
#include "kernels/matmul_avx2_tiles.h"

namespace trellis {
namespace {

// This and MultiplyPair() are assembly because order counts: g++ makes trees of chains of sums and
// spills their leaves, and a product that its own sum follows at once takes the unit that the next
// product needs: 164 against 149 GMAC/s on Zen 3.

// sum (+)= weights x the quad of activations at a + kOffset, pairs added, in 16 bits.
template <int kOffset, bool kFirst>
inline void MultiplyQuad(const __m256i (&w)[2], const int8_t* a, __m256i (&sum)[2]) {
  __m256i t0, t1;
  if constexpr (kFirst) {
    asm("vpbroadcastd %c[offset](%[a]), %[t0]\n\t"
        "vpmaddubsw %[t0], %[w0], %[s0]\n\t"
        "vpmaddubsw %[t0], %[w1], %[s1]"
        : [s0] "=&x"(sum[0]), [s1] "=&x"(sum[1]), [t0] "=&x"(t0)
        : [a] "r"(a), [offset] "i"(kOffset), [w0] "x"(w[0]), [w1] "x"(w[1]),
          "m"(Readable<kBlockDepth>(a)));
  } else {
    asm("vpbroadcastd %c[offset](%[a]), %[t0]\n\t"
        "vpmaddubsw %[t0], %[w0], %[t1]\n\t"
        "vpmaddubsw %[t0], %[w1], %[t0]\n\t"
        "vpaddw %[t1], %[s0], %[s0]\n\t"
        "vpaddw %[t0], %[s1], %[s1]"
        : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [t0] "=&x"(t0), [t1] "=&x"(t1)
        : [a] "r"(a), [offset] "i"(kOffset), [w0] "x"(w[0]), [w1] "x"(w[1]),
          "m"(Readable<kBlockDepth>(a)));
  }
}

// total (+)= products of a unit, at a, times factors, pairs of 16 bits; in steps whose sums fit 16
// bits. kFirst: total is set.
template <PackedType kType, bool kFirst, int kRows, typename Block>
[[gnu::always_inline]] inline void AddProducts(const Block& block, size_t unit,
                                               const RowPointers<kRows>& a,
                                               const __m256i (&factors)[2], Ints<kRows>& total) {
  constexpr int kStep = kType == PackedType::kQ6_K ? 2 : HasBit4(kType) ? 4 : 8;
  Unrolled<UnitQuads(kType) / kStep>([&](auto step) __attribute__((always_inline)) {
    Ints<kRows> sum;
    Unrolled<kStep>([&](auto j) __attribute__((always_inline)) {
      constexpr int kQuad = step * kStep + j;
      __m256i w[2];
      block.template Weights<kQuad>(unit, w);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) MultiplyQuad<4 * kQuad, j == 0>(w, a.at[r], sum[r]);
    });
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int i = 0; i < 2; i++) {
        const __m256i products = _mm256_madd_epi16(sum[r][i], factors[i]);
        total[r][i] = kFirst && step == 0 ? products : _mm256_add_epi32(total[r][i], products);
      }
    }
  });
}

// The rows of a tile at a block in 16 bits, in kQ8_0's order of depths.
template <int kRows>
struct WideRows {
  struct Pointer {
    const int16_t* at;
    void Skip(size_t n) { at += n; }
  };

  alignas(32) int16_t values[kRows][kBlockDepth];

  WideRows(const TileRows& rows, size_t groups) {
    for (size_t r = 0; r < kRows; r++) {
      for (size_t g = 0; g < groups; g++) {
        const __m256i x = Load(rows.values + r * rows.value_stride + g * kGroupDepth);
        const __m256i even = EvenBytes(x), odd = OddBytes(x);
        const __m256i low = _mm256_unpacklo_epi32(even, odd),
                      high = _mm256_unpackhi_epi32(even, odd);
        int16_t* to = values[r] + g * kGroupDepth;
        Store(to, _mm256_permute2x128_si256(low, high, 0x20));
        Store(to + kGroupDepth / 2, _mm256_permute2x128_si256(low, high, 0x31));
      }
    }
  }
  Pointer Begin() const { return {values[0]}; }
};

// total = products of a group of kQ8_0; a: WideRows' values at the group.
template <int kRows, typename Block>
[[gnu::always_inline]] inline void MultiplyWide(const Block& block, size_t group, const int16_t* a,
                                                Ints<kRows>& total) {
  Unrolled<kGroupDepth / 2>([&](auto pair) __attribute__((always_inline)) {
    __m256i w[2];
    block.template Weights<pair>(group, w);
    Unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      constexpr int kOffset = 2 * static_cast<int>(kBlockDepth) * r + 4 * pair;
      MultiplyPair<kOffset, kRows * kBlockDepth, pair == 0>(w, a, total[r]);
    });
  });
}

struct SixteenBits {
  static constexpr int kTileRows = 4;  // 8 sums, 2 weights, an activation and a product
  static constexpr bool kDots = false;

  template <PackedType kType, int kRows>
  using Rows = std::conditional_t<kType == PackedType::kQ8_0, WideRows<kRows>, RowPointers<kRows>>;

  template <PackedType kType, int kRows, typename Block, typename Values>
  [[gnu::always_inline]] static void Multiply(const Block& block, size_t unit, const Values& a,
                                              Ints<kRows>& total) {
    if constexpr (kType == PackedType::kQ8_0) {
      MultiplyWide<kRows>(block, unit, a.at, total);
    } else {
      const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
      AddProducts<kType, true, kRows>(block, unit, a, ones, total);
    }
  }

  template <PackedType kType, int kRows, typename Block>
  [[gnu::always_inline]] static void AddScaled(const Block& block, size_t unit,
                                               const RowPointers<kRows>& a, Ints<kRows>& total) {
    const __m256i scales[2] = {block.Scale(unit, 0), block.Scale(unit, 1)};
    AddProducts<kType, false, kRows>(block, unit, a, scales, total);
  }
};

// --- Activations ---

struct Quantizer {
  static float AbsMax(const float* x, size_t n) {
    __m256 max = _mm256_setzero_ps();
    for (size_t k = 0; k < n; k += 8)
      max = _mm256_max_ps(max, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), _mm256_loadu_ps(x + k)));
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps(max, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
  }

  static void QuantizeGroup(const float* x, float inverse, int8_t* values, int16_t* sums) {
    const __m256i top = _mm256_set1_epi32(127), bottom = _mm256_set1_epi32(-127);
    __m256i q[4];
    for (int i = 0; i < 4; i++) {
      const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_set1_ps(inverse));
      q[i] = _mm256_max_epi32(_mm256_min_epi32(_mm256_cvtps_epi32(scaled), top), bottom);
    }
    __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    Store(values, bytes);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    __m256i total = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    total = _mm256_hadd_epi32(total, total);
    total = _mm256_hadd_epi32(total, total);
    sums[0] = static_cast<int16_t>(_mm256_extract_epi32(total, 0));
    sums[1] = static_cast<int16_t>(_mm256_extract_epi32(total, 4));
  }
};

}  // namespace

MatmulKernels Avx2MatmulKernels() {
  return {.quantize_rows = QuantizeRowsWith<Quantizer>,
          .matmul = BlockedMatmul<InTiles<Avx2Matmul<SixteenBits>>>::Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
