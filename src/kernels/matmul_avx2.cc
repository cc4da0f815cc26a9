// AVX2 without dot-product instructions, in the loops of matmul_blocked.h.
//
// ARITHMETIC. vpmaddubsw multiplies unsigned weights by signed activations and leaves sums of two
// in 16 bits. There more of them are added while they must fit (4 bits: 8 x 2 x 15 x 127 < 2^15,
// so a whole group of 32; 5 bits: half of one; 6 bits: a quarter) before vpmaddwd widens them; for
// K-types it multiplies by the integer scale at the same time, so these are read exactly and a
// block needs one conversion to f32. 8-bit weights and their activations are multiplied in 16 bits.
#if defined(__x86_64__)

#include "kernels/matmul_avx2_blocks.h"

#include <array>
#include <cstring>

#include "kernels/kernels_internal.h"
#include "kernels/matmul_blocked.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// --- Tiles: kRows rows x half a panel, one block ---

// 8 sums, 2 weights, an activation and a product in 16 registers.
constexpr int kMaxTileRows = 4;

template <int kRows>
using Ints = __m256i[kRows][2];
template <int kRows>
using Floats = __m256[kRows][2];

// What assembly that is given a pointer may read there: has the compiler write it before.
template <size_t kCount, typename T>
inline const std::array<T, kCount>& Readable(const T* p) {
  return *reinterpret_cast<const std::array<T, kCount>*>(p);
}

// These two are assembly because order counts: g++ makes trees of chains of sums and spills their
// leaves, and a product that its own sum follows at once takes the unit that the next product
// needs: 164 against 149 GMAC/s on Zen 3.

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

// sum (+)= 16-bit weights x the pair of activations at a + kOffset bytes, added, in 32 bits.
template <int kOffset, size_t kReadable, bool kFirst>
inline void MultiplyPair(const __m256i (&w)[2], const int16_t* a, __m256i (&sum)[2]) {
  __m256i t0, t1;
  if constexpr (kFirst) {
    asm("vpbroadcastd %c[offset](%[a]), %[t0]\n\t"
        "vpmaddwd %[t0], %[w0], %[s0]\n\t"
        "vpmaddwd %[t0], %[w1], %[s1]"
        : [s0] "=&x"(sum[0]), [s1] "=&x"(sum[1]), [t0] "=&x"(t0)
        : [a] "r"(a), [offset] "i"(kOffset), [w0] "x"(w[0]), [w1] "x"(w[1]),
          "m"(Readable<kReadable>(a)));
  } else {
    asm("vpbroadcastd %c[offset](%[a]), %[t0]\n\t"
        "vpmaddwd %[t0], %[w0], %[t1]\n\t"
        "vpmaddwd %[t0], %[w1], %[t0]\n\t"
        "vpaddd %[t1], %[s0], %[s0]\n\t"
        "vpaddd %[t0], %[s1], %[s1]"
        : [s0] "+x"(sum[0]), [s1] "+x"(sum[1]), [t0] "=&x"(t0), [t1] "=&x"(t1)
        : [a] "r"(a), [offset] "i"(kOffset), [w0] "x"(w[0]), [w1] "x"(w[1]),
          "m"(Readable<kReadable>(a)));
  }
}

// Where the rows' values are.
template <int kRows>
struct RowPointers {
  const int8_t* at[kRows];

  explicit RowPointers(const TileRows& rows) {
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++)
      at[r] = rows.values + static_cast<size_t>(r) * rows.value_stride;
  }
  void Skip(size_t n) {
    TRELLIS_UNROLL
    for (const int8_t*& p : at) p += n;
  }
};

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

// out += a block of a type with scales per group. wide: WideRows' values, kQ8_0 alone reads them.
template <PackedType kType, int kRows, typename Block>
[[gnu::always_inline]] inline void GroupedBlock(const Block& block, size_t groups,
                                                const TileRows& rows, const int16_t* wide,
                                                Floats<kRows>& out) {
  constexpr bool kCentred = kType == PackedType::kQ4_0 || kType == PackedType::kQ5_0;
  const __m256i ones[2] = {_mm256_set1_epi16(1), _mm256_set1_epi16(1)};
  RowPointers<kRows> a(rows);
  for (size_t g = 0; g < groups; g++) {
    Ints<kRows> total;
    if constexpr (kType == PackedType::kQ8_0) {
      MultiplyWide<kRows>(block, g, wide + g * kGroupDepth, total);
    } else {
      AddProducts<kType, true, kRows>(block, g, a, ones, total);
      a.Skip(kGroupDepth);
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const auto row = static_cast<size_t>(r);
      const size_t at = row * rows.scale_stride + g;
      const __m256 scale = _mm256_set1_ps(rows.scales[at]);
      if constexpr (kCentred) {
        const __m256i offset =
            _mm256_set1_epi32(ZeroPoint(kType) * rows.group_sums[row * rows.group_stride + g]);
        for (__m256i& t : total[r]) t = _mm256_sub_epi32(t, offset);
      }
      TRELLIS_UNROLL
      for (int i = 0; i < 2; i++) {
        out[r][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[r][i]),
                                    _mm256_mul_ps(block.D(g, i), scale), out[r][i]);
        if constexpr (HasGroupMin(kType))
          out[r][i] =
              _mm256_fmadd_ps(block.M(g, i), _mm256_set1_ps(rows.scaled_sums[at]), out[r][i]);
      }
    }
  }
}

// total = SumFactor() . sums of the rows, kPairs of each.
template <int kPairs, int kRows, typename Block>
[[gnu::always_inline]] inline void MultiplySums(const Block& block, const int16_t* sums,
                                                size_t stride, Ints<kRows>& total) {
  Unrolled<kPairs>([&](auto p) __attribute__((always_inline)) {
    const __m256i factors[2] = {block.SumFactor(p, 0), block.SumFactor(p, 1)};
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const int16_t* row = sums + static_cast<size_t>(r) * stride;
      MultiplyPair<4 * p, 2 * kPairs, p == 0>(factors, row, total[r]);
    }
  });
}

// out += a block of a K-type.
template <PackedType kType, int kRows, typename Block>
[[gnu::always_inline]] inline void KBlock(const Block& block, const TileRows& rows,
                                          Floats<kRows>& out) {
  constexpr bool kSix = kType == PackedType::kQ6_K;
  constexpr size_t kUnits = kBlockDepth / 4 / UnitQuads(kType);
  Ints<kRows> total, sums;
  if constexpr (kSix) {
    // 32 x (scales . sums of 16 depths) is what the unsigned weights have too much.
    MultiplySums<kUnits / 2, kRows>(block, rows.half_sums, 2 * rows.group_stride, sums);
  } else {
    MultiplySums<kUnits / 2, kRows>(block, rows.group_sums, rows.group_stride, sums);
  }
  const __m256i zero = _mm256_setzero_si256();
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (int i = 0; i < 2; i++)
      total[r][i] = kSix ? _mm256_sub_epi32(zero, _mm256_slli_epi32(sums[r][i], 5)) : zero;
  }
  RowPointers<kRows> a(rows);
  for (size_t unit = 0; unit < kUnits; unit++) {
    const __m256i scales[2] = {block.Scale(unit, 0), block.Scale(unit, 1)};
    AddProducts<kType, false, kRows>(block, unit, a, scales, total);
    a.Skip(4 * UnitQuads(kType));
  }
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m256 s = _mm256_set1_ps(rows.scales[static_cast<size_t>(r) * rows.scale_stride]);
    TRELLIS_UNROLL
    for (int i = 0; i < 2; i++) {
      out[r][i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[r][i]), _mm256_mul_ps(block.D(0, i), s),
                                  out[r][i]);
      if constexpr (!kSix)
        out[r][i] = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(sums[r][i]),
                                     _mm256_mul_ps(block.M(0, i), s), out[r][i]);
    }
  }
}

template <PackedType kType>
inline __m256 LoadWeights(const std::byte* p) {
  if constexpr (kType == PackedType::kF32)
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  if constexpr (kType == PackedType::kF16) return LoadHalves(p);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

template <PackedType kType, int kRows>
inline void FloatBlock(const std::byte* block, size_t groups, int half, const float* x,
                       size_t x_stride, Floats<kRows>& out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    __m256 w[2];
    TRELLIS_UNROLL
    for (int i = 0; i < 2; i++) {
      const size_t output = static_cast<size_t>(kHalfOutputs * half + 8 * i);
      w[i] = LoadWeights<kType>(block + (k * kPanelOutputs + output) * kElement);
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m256 v = _mm256_set1_ps(x[static_cast<size_t>(r) * x_stride + k]);
      TRELLIS_UNROLL
      for (int i = 0; i < 2; i++) out[r][i] = _mm256_fmadd_ps(v, w[i], out[r][i]);
    }
  }
}

struct Avx2Matmul {
  static constexpr int kTileRows = kMaxTileRows;

  // What taking a block apart once for each tile costs is less than writing it down for two tiles,
  // but for the types whose fifth bits lie apart.
  static constexpr size_t DirectRows(PackedType type) {
    return HasBit4(type) ? kMaxTileRows : 2 * kMaxTileRows;
  }

  template <PackedType kType>
  static void Unpack(const std::byte* block, size_t groups, std::byte* unpacked) {
    UnpackBlock<kType>(block, groups, unpacked);
  }

  // Not inlined: registers are for this alone.
  template <PackedType kType, int kRows>
  [[gnu::noinline]] static void Tile(const TileInput& in, float* sums) {
    if constexpr (FormFor(kType) == ActivationForm::kF32) {
      Halves<kRows>(
          in, sums, [&](auto half, Floats<kRows>& out) __attribute__((always_inline)) {
            FloatBlock<kType, kRows>(in.block, in.groups, half, in.x, in.x_stride, out);
          });
    } else if (in.unpacked == nullptr) {
      Quantized<kType, kRows, PackedBlock>(in, in.block, sums);
    } else {
      Quantized<kType, kRows, UnpackedBlock>(in, in.unpacked, sums);
    }
  }

 private:
  template <PackedType kType, int kRows, template <PackedType, int> typename Block>
  [[gnu::always_inline]] static void Quantized(const TileInput& in, const std::byte* bytes,
                                               float* sums) {
    if constexpr (kType == PackedType::kQ8_0) {
      const WideRows<kRows> wide(in.rows, in.groups);
      Halves<kRows>(
          in, sums, [&](auto half, Floats<kRows>& out) __attribute__((always_inline)) {
            const Block<kType, half> block(bytes);
            GroupedBlock<kType, kRows>(block, in.groups, in.rows, wide.values[0], out);
          });
    } else {
      Halves<kRows>(
          in, sums, [&](auto half, Floats<kRows>& out) __attribute__((always_inline)) {
            const Block<kType, half> block(bytes);
            if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
              GroupedBlock<kType, kRows>(block, in.groups, in.rows, nullptr, out);
            } else {
              KBlock<kType, kRows>(block, in.rows, out);
            }
          });
    }
  }

  // add(half, out) for both halves of sums [kRows, kPanelOutputs].
  template <int kRows, typename Add>
  [[gnu::always_inline]] static void Halves(const TileInput& in, float* sums, const Add& add) {
    Unrolled<2>([&](auto half) __attribute__((always_inline)) {
      const auto at = [&](int r, int i) __attribute__((always_inline)) {
        return sums + static_cast<size_t>(r) * kPanelOutputs + kHalfOutputs * half + 8 * i;
      };
      Floats<kRows> out;
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < 2; i++)
          out[r][i] = in.is_first ? _mm256_setzero_ps() : _mm256_loadu_ps(at(r, i));
      }
      add(half, out);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < 2; i++) _mm256_storeu_ps(at(r, i), out[r][i]);
      }
    });
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
          .matmul = BlockedMatmul<Avx2Matmul>::Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
