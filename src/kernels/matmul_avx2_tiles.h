// Matmuls in vectors of 256 bits, in the loops of matmul_blocked.h, over an arithmetic A that
// multiplies bytes. Internal to kernels/; for translation units compiled for AVX2, each of which
// has its own copy.
//
// A::kTileRows: rows of a tile.
// A::kDots: how it takes weights and scales, see PackedBlock.
// A::Rows<kType, kRows>(rows, groups): the rows of a tile at a block as it reads them; Begin() is
// where they begin, and Skip(depths) moves that on.
// A::Multiply<kType, kRows>(block, unit, a, total): total = products of a unit, at a.
// A::AddScaled<kType, kRows>(block, unit, a, total): total += these times the integer scales.
#pragma once

#include "kernels/matmul_avx2_blocks.h"

#include <array>
#include <cstring>

#include "kernels/matmul_blocked.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// --- Tiles: kRows rows x half a panel, one block ---

template <int kRows>
using Ints = __m256i[kRows][2];
template <int kRows>
using Floats = __m256[kRows][2];

// What assembly that is given a pointer may read there: has the compiler write it before.
template <size_t kCount, typename T>
inline const std::array<T, kCount>& Readable(const T* p) {
  return *reinterpret_cast<const std::array<T, kCount>*>(p);
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

  RowPointers(const TileRows& rows, size_t /*groups*/) {
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++)
      at[r] = rows.values + static_cast<size_t>(r) * rows.value_stride;
  }
  const RowPointers& Begin() const { return *this; }
  void Skip(size_t n) {
    TRELLIS_UNROLL
    for (const int8_t*& p : at) p += n;
  }
};

// out += a block of a type with scales per group; a: where its A::Rows begin.
template <typename A, PackedType kType, int kRows, typename Block, typename Values>
[[gnu::always_inline]] inline void GroupedBlock(const Block& block, size_t groups,
                                                const TileRows& rows, Values a,
                                                Floats<kRows>& out) {
  // Weights that are signed, and lie unsigned.
  constexpr bool kCentred = kType == PackedType::kQ4_0 || kType == PackedType::kQ5_0 ||
                            (kType == PackedType::kQ8_0 && A::kDots);
  for (size_t g = 0; g < groups; g++) {
    Ints<kRows> total;
    A::template Multiply<kType, kRows>(block, g, a, total);
    a.Skip(kGroupDepth);
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
template <typename A, PackedType kType, int kRows, typename Block, typename Values>
[[gnu::always_inline]] inline void KBlock(const Block& block, const TileRows& rows, Values a,
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
  for (size_t unit = 0; unit < kUnits; unit++) {
    A::template AddScaled<kType, kRows>(block, unit, a, total);
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

template <typename A>
struct Avx2Matmul {
  static constexpr int kTileRows = A::kTileRows;

  // What taking a block apart once for each tile costs is less than writing it down for two tiles,
  // but for the types whose fifth bits lie apart.
  static constexpr size_t DirectRows(PackedType type) {
    return HasBit4(type) ? kTileRows : 2 * kTileRows;
  }

  template <PackedType kType>
  static void Unpack(const std::byte* block, size_t groups, std::byte* unpacked) {
    UnpackBlock<kType, A::kDots>(block, groups, unpacked);
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
  template <PackedType kType, int kRows, template <PackedType, int, bool> typename Block>
  [[gnu::always_inline]] static void Quantized(const TileInput& in, const std::byte* bytes,
                                               float* sums) {
    const typename A::template Rows<kType, kRows> rows(in.rows, in.groups);
    Halves<kRows>(
        in, sums, [&](auto half, Floats<kRows>& out) __attribute__((always_inline)) {
          const Block<kType, half, A::kDots> block(bytes);
          if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
            GroupedBlock<A, kType, kRows>(block, in.groups, in.rows, rows.Begin(), out);
          } else {
            KBlock<A, kType, kRows>(block, in.rows, rows.Begin(), out);
          }
        });
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

}  // namespace
}  // namespace trellis
