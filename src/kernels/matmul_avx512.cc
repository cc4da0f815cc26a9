// AVX-512 with VNNI. Tiles take packed blocks apart as they go, whatever the number of rows: the
// products keep two units busy, and shifts and masks run on the others.
#if defined(__x86_64__)

#include <immintrin.h>

#include <type_traits>

#include "kernels/kernels_internal.h"
#include "kernels/matmul_avx512_quads.h"
#include "kernels/matmul_blocked.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// 12 sums of a group, 12 of a block, weights and temporaries in 32 registers; the sums are chains
// enough for two instructions a cycle of latency five.
constexpr int kRowsOfTile = 6;

// Of a tile, by halves of the panel.
template <int kRows>
using Ints = __m512i[kRows][2];
template <int kRows>
using Floats = __m512[kRows][2];

// These are assembly because g++ 12 copies and spills the sums of the intrinsics: half the speed.

// acc += dot of four unsigned bytes of w, signed bytes of a.
inline void Dot(__m512i& acc, __m512i w, __m512i a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
}

// acc += dot of two signed 16-bit numbers of w and of a.
inline void DotPair(__m512i& acc, __m512i w, __m512i a) {
  asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(w), "v"(a));
}

template <int kRows>
inline void Clear(Ints<kRows>& acc) {
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
}

// The rows of a tile at a block; strides as constants would be lost in a loop.
template <int kRows>
struct RowPointers {
  const int8_t* at[kRows];

  explicit RowPointers(const TileRows& rows) {
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) at[r] = rows.values + r * rows.value_stride;
  }
  void Skip(size_t n) {
    TRELLIS_UNROLL
    for (const int8_t*& p : at) p += n;
  }
};

// Part `part` of the next block, kBytes of it, if this tile is to prefetch: one row is done with a
// block long before the memory has the next. What lies further ahead is on its way to L2 by then:
// an Intel core waits for three times as many lines there as in L1.
template <size_t kBytes>
[[gnu::always_inline]] inline void PrefetchShare(const TileInput& in, size_t part) {
  if (in.next == nullptr) return;
  const auto every = [&](auto stride) __attribute__((always_inline)) {
    constexpr size_t kAhead = 8192;
    TRELLIS_UNROLL
    for (size_t i = 0; i < kBytes; i += stride) {
      __builtin_prefetch(in.next + part * kBytes + i);
      __builtin_prefetch(in.next + part * kBytes + i + kAhead, 0, 2);
    }
  };
  if (in.next_alternates) {
    every(std::integral_constant<size_t, 2 * kCacheLine>());
  } else {
    every(std::integral_constant<size_t, kCacheLine>());
  }
}

// --- Tiles: kRows rows x one panel, one block ---

// acc += products of kQuads quads with the activations at a.
template <int kQuads, int kRows, typename Quads>
[[gnu::always_inline]] inline void AddQuads(const Quads& quads, const RowPointers<kRows>& a,
                                            Ints<kRows>& acc) {
  Unrolled<kQuads>([&](auto quad) __attribute__((always_inline)) {
    __m512i w[2];
    quads.template Load<quad>(w);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512i v = Broadcast(a.at[r] + 4 * quad);
      Dot(acc[r][0], w[0], v);
      Dot(acc[r][1], w[1], v);
    }
  });
}

// A block of a type with scales per group.
template <PackedType kType, int kRows>
inline void GroupedBlock(const TileInput& in, Floats<kRows>& out) {
  RowPointers<kRows> a(in.rows);
  const std::byte* block = in.block;
  for (size_t g = 0; g < in.groups; g++, block += GroupBytes(kType), a.Skip(kGroupDepth)) {
    PrefetchShare<GroupBytes(kType)>(in, g);
    const std::byte* q = block + GroupQuantOffset(kType);
    Ints<kRows> acc;
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const int zero = HasGroupMin(kType) ? 0 : ZeroPoint(kType);
      acc[r][0] = acc[r][1] =
          _mm512_set1_epi32(-zero * in.rows.group_sums[r * in.rows.group_stride + g]);
    }
    if constexpr (kType == PackedType::kQ8_0) {
      AddQuads<kQuadsPerGroup>(ByteQuads{q}, a, acc);
    } else {
      AddQuads<kQuadsPerGroup>(NibbleQuads<HasBit4(kType)>{q, block + GroupBit4Offset(kType)}, a,
                               acc);
    }
    const __m512 d[2] = {LoadHalves(block), LoadHalves(block + 32)};
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512 scale = _mm512_set1_ps(in.rows.scales[r * in.rows.scale_stride + g]);
      TRELLIS_UNROLL
      for (int h = 0; h < 2; h++) {
        out[r][h] =
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][h]), _mm512_mul_ps(d[h], scale), out[r][h]);
      }
    }
    if constexpr (HasGroupMin(kType)) {
      const __m512 m[2] = {LoadHalves(block + kHalfRow), LoadHalves(block + kHalfRow + 32)};
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        const __m512 sum = _mm512_set1_ps(in.rows.scaled_sums[r * in.rows.scale_stride + g]);
        TRELLIS_UNROLL
        for (int h = 0; h < 2; h++) out[r][h] = _mm512_fmadd_ps(m[h], sum, out[r][h]);
      }
    }
  }
}

// total = factors . sums of the rows, both signed 16-bit; Factors(g, h): the 16 of sum g, in 32
// bits each.
template <int kSums, int kRows, typename Factors>
[[gnu::always_inline]] inline void MultiplySums(const int16_t* sums, size_t stride,
                                                const Factors& factors, Ints<kRows>& total) {
  Clear<kRows>(total);
  for (size_t g = 0; g < kSums; g += 2) {
    __m512i pairs[2];
    TRELLIS_UNROLL
    for (int h = 0; h < 2; h++) {
      pairs[h] = Interleave(factors(g, h), factors(g + 1, h));
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512i v = Broadcast(sums + r * stride + g);
      DotPair(total[r][0], pairs[0], v);
      DotPair(total[r][1], pairs[1], v);
    }
  }
}

// total += products of a unit x the integer scales of its halves.
template <int kQuads, int kRows, typename Quads>
[[gnu::always_inline]] inline void AddUnit(const Quads& quads, const RowPointers<kRows>& a,
                                           const __m512i (&scales)[2], Ints<kRows>& total) {
  Ints<kRows> acc;
  Clear<kRows>(acc);
  AddQuads<kQuads>(quads, a, acc);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (int h = 0; h < 2; h++)
      total[r][h] = _mm512_add_epi32(total[r][h], _mm512_mullo_epi32(acc[r][h], scales[h]));
  }
}

// out += d x scale of the row x total.
template <int kRows>
[[gnu::always_inline]] inline void AddScaled(const __m512 (&d)[2], const TileRows& rows,
                                             const Ints<kRows>& total, Floats<kRows>& out) {
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m512 scale = _mm512_set1_ps(rows.scales[r * rows.scale_stride]);
    TRELLIS_UNROLL
    for (int h = 0; h < 2; h++) {
      out[r][h] =
          _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][h]), _mm512_mul_ps(d[h], scale), out[r][h]);
    }
  }
}

template <PackedType kType, int kRows>
inline void AffineBlock(const TileInput& in, Floats<kRows>& out) {
  const std::byte* block = in.block;
  const auto bytes = [&](size_t offset) {
    return [=](size_t g, int h) {
      return _mm512_cvtepu8_epi32(LoadSixteen(block + offset + g * kPanelOutputs + 16 * h));
    };
  };
  Ints<kRows> total;
  Clear<kRows>(total);
  RowPointers<kRows> a(in.rows);
  NibbleQuads<HasBit4(kType)> quads{block + NibbleOffset(kGroupsPerBlock),
                                    block + Bit4Offset(kGroupsPerBlock)};
  const auto scale = bytes(ScOffset());
  for (size_t g = 0; g < kGroupsPerBlock; g++) {
    PrefetchShare<BlockBytes(kType, kGroupsPerBlock) / kGroupsPerBlock>(in, g);
    AddUnit<kQuadsPerGroup>(quads, a, {scale(g, 0), scale(g, 1)}, total);
    quads.q += kQuadsPerGroup * kNibbleQuadBytes, quads.bits += kQuadsPerGroup * kBit4QuadBytes;
    a.Skip(kGroupDepth);
  }
  AddScaled<kRows>({LoadHalves(block), LoadHalves(block + 32)}, in.rows, total, out);
  const auto minus_dmin = [&](size_t offset) {
    return _mm512_sub_ps(_mm512_setzero_ps(), LoadHalves(block + DminOffset() + offset));
  };
  MultiplySums<kGroupsPerBlock, kRows>(in.rows.group_sums, in.rows.group_stride,
                                       bytes(MinOffset(kGroupsPerBlock)), total);
  AddScaled<kRows>({minus_dmin(0), minus_dmin(32)}, in.rows, total, out);
}

template <int kRows>
inline void SixBitBlock(const TileInput& in, Floats<kRows>& out) {
  const std::byte* block = in.block;
  const auto scale = [&](size_t g, int h) {
    return _mm512_cvtepi8_epi32(LoadSixteen(block + Q6ScOffset() + g * kPanelOutputs + 16 * h));
  };
  // 32 x (scales . sums of 16 depths) is what the unsigned weights have too much.
  Ints<kRows> total;
  MultiplySums<2 * kGroupsPerBlock, kRows>(in.rows.half_sums, 2 * in.rows.group_stride, scale,
                                           total);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (__m512i& t : total[r])
      t = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(t, 5));
  }
  RowPointers<kRows> a(in.rows);
  SixBitQuads quads{block + Q6NibbleOffset(kGroupsPerBlock), block + Q6HighOffset(kGroupsPerBlock)};
  for (size_t g = 0; g < 2 * kGroupsPerBlock; g++) {
    PrefetchShare<BlockBytes(PackedType::kQ6_K, kGroupsPerBlock) / kGroupsPerBlock / 2>(in, g);
    AddUnit<kQuadsPerGroup / 2>(quads, a, {scale(g, 0), scale(g, 1)}, total);
    quads.q += kQuadsPerGroup / 2 * kNibbleQuadBytes;
    quads.high += kQuadsPerGroup / 4 * kNibbleQuadBytes;
    a.Skip(kGroupDepth / 2);
  }
  AddScaled<kRows>({LoadHalves(block), LoadHalves(block + 32)}, in.rows, total, out);
}

template <PackedType kType>
inline __m512 LoadWeights(const std::byte* p) {
  if constexpr (kType == PackedType::kF32) return _mm512_loadu_ps(p);
  if constexpr (kType == PackedType::kF16) return LoadHalves(p);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

template <PackedType kType, int kRows>
inline void FloatBlock(const TileInput& in, Floats<kRows>& out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  const std::byte* block = in.block;
  for (size_t k = 0; k < in.groups * kGroupDepth; k++, block += kPanelOutputs * kElement) {
    const __m512 w[2] = {LoadWeights<kType>(block), LoadWeights<kType>(block + 16 * kElement)};
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512 v = _mm512_set1_ps(in.x[r * in.x_stride + k]);
      TRELLIS_UNROLL
      for (int h = 0; h < 2; h++) out[r][h] = _mm512_fmadd_ps(v, w[h], out[r][h]);
    }
  }
}

struct Avx512Matmul {
  static constexpr int kTileRows = kRowsOfTile;

  static constexpr size_t DirectRows(PackedType) { return SIZE_MAX; }
  template <PackedType>
  static void Unpack(const std::byte*, size_t, std::byte*) {}

  // Not inlined: registers are for this alone.
  template <PackedType kType, int kRows>
  [[gnu::noinline]] static void Tile(const TileInput& in, float* sums) {
    Floats<kRows> out;
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int h = 0; h < 2; h++) {
        out[r][h] =
            in.is_first ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + r * kPanelOutputs + 16 * h);
      }
    }
    if constexpr (FormFor(kType) == ActivationForm::kF32) {
      FloatBlock<kType, kRows>(in, out);
    } else if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
      GroupedBlock<kType, kRows>(in, out);
    } else if constexpr (kType == PackedType::kQ6_K) {
      SixBitBlock<kRows>(in, out);
    } else {
      AffineBlock<kType, kRows>(in, out);
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int h = 0; h < 2; h++) _mm512_storeu_ps(sums + r * kPanelOutputs + 16 * h, out[r][h]);
    }
  }
};

// --- Activations ---

struct Quantizer {
  static float AbsMax(const float* x, size_t n) {
    __m512 max = _mm512_setzero_ps();
    for (size_t k = 0; k < n; k += 16)
      max = _mm512_max_ps(max, _mm512_abs_ps(_mm512_loadu_ps(x + k)));
    return _mm512_reduce_max_ps(max);
  }

  static void QuantizeGroup(const float* x, float inverse, int8_t* values, int16_t* sums) {
    const __m512i top = _mm512_set1_epi32(127), bottom = _mm512_set1_epi32(-127);
    for (int h = 0; h < 2; h++) {
      const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + 16 * h), _mm512_set1_ps(inverse));
      const __m512i q = _mm512_max_epi32(_mm512_min_epi32(_mm512_cvtps_epi32(scaled), top), bottom);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(values + 16 * h), _mm512_cvtepi32_epi8(q));
      sums[h] = static_cast<int16_t>(_mm512_reduce_add_epi32(q));
    }
  }
};

}  // namespace

MatmulKernels Avx512MatmulKernels() {
  return {.quantize_rows = QuantizeRowsWith<Quantizer>,
          .matmul = BlockedMatmul<InTiles<Avx512Matmul>>::Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
