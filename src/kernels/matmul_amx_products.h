// AMX's products: 16 rows x 16 outputs in one instruction, with their scales from AVX-512. Internal
// to kernels/; for translation units compiled for AVX-512.
//
// A tile multiplies 64 depths in the time of 32, but a sum needs its scale before the next group's
// is added to it. So:
//
// K-types have integer scales: a block is unpacked to scale x quant, up to 13 bits, as a plane of
// low and one of high bytes. 256 depths are then two sums, low + 256 * high, the exact integer that
// other instruction sets have.
//
// Types with f16 scales per group are unpacked to signed bytes, multiplied 32 depths at a time, and
// every product takes its scale from AVX-512, which is what limits them: on Granite Rapids it runs
// at half its rate while tiles are in use.
#pragma once

#include <immintrin.h>

#include "kernels/matmul_avx512_quads.h"
#include "kernels/matmul_blocked.h"
#include "kernels/tiles_amx.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

constexpr size_t kTileRows = AmxTiles::kRows;
constexpr size_t kTileBytes = kTileRows * AmxTiles::kRowBytes;
constexpr size_t kHalfPanel = kPanelOutputs / 2;

// Part `kStep` of kSteps of a block of the tile of rows behind that at `values`.
template <size_t kStep, size_t kSteps>
[[gnu::always_inline]] inline void PrefetchTile(const int8_t* values, size_t stride) {
  constexpr size_t kRows = kTileRows / kSteps;
  values += (kTileRows + kStep * kRows) * stride;
  for (size_t r = 0; r < kRows; r++, values += stride) {
    for (size_t k = 0; k < kBlockDepth; k += 64) __builtin_prefetch(values + k);
  }
}

inline __m512i* Vector(std::byte* p) {
  return reinterpret_cast<__m512i*>(p);
}

template <PackedType kType>
struct QuadsOf {
  // Calls use(j, halves) for quads [0, kQuads) of the block or group at `block`.
  template <int kQuads, typename Use>
  [[gnu::always_inline]] static void ForEach(const std::byte* nibbles, const std::byte* high,
                                             const Use& use) {
    Unrolled<kQuads>([&](auto quad) __attribute__((always_inline)) {
      __m512i w[2];
      if constexpr (kType == PackedType::kQ8_0) {
        ByteQuads{nibbles}.Load<quad>(w);
      } else if constexpr (kType == PackedType::kQ6_K) {
        SixBitQuads{nibbles, high}.Load<quad>(w);
      } else {
        NibbleQuads<HasBit4(kType)>{nibbles, high}.template Load<quad>(w);
      }
      use(quad, w);
    });
  }
};

// --- K-types ---

// Unpacked: [half of the panel][step][low bytes, high bytes], each a tile of 64 depths.
template <typename Tiles, PackedType kType>
class BlockProducts {
 public:
  static constexpr size_t kSteps = kBlockDepth / 64, kLag = 1;
  static constexpr size_t kTilesOfRow = 1;  // both halves of the panel at once
  static constexpr TileConfig kConfig = {.row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                         .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
  static constexpr size_t kSumBytes = 4 * kTileBytes;  // [half][low, high]

  static void Unpack(const std::byte* block, size_t, std::byte* to) {
    // Quads that share a scale; where a block's scales and its quants begin.
    constexpr int kQuads = kType == PackedType::kQ6_K ? 4 : 8;
    constexpr size_t kScales = kType == PackedType::kQ6_K ? Q6ScOffset() : ScOffset();
    const std::byte* nibbles = block + (kType == PackedType::kQ6_K ? Q6NibbleOffset(kGroupsPerBlock)
                                                                   : NibbleOffset(kGroupsPerBlock));
    const std::byte* high = block + (kType == PackedType::kQ6_K ? Q6HighOffset(kGroupsPerBlock)
                                                                : Bit4Offset(kGroupsPerBlock));
    for (size_t j = 0; j < kBlockDepth / 4; j += kQuads) {
      __m512i scales[2];  // as pairs of 16 bits
      for (size_t h = 0; h < 2; h++) {
        const __m128i bytes = LoadSixteen(block + kScales + j / kQuads * kPanelOutputs + 16 * h);
        const __m512i wide =
            kType == PackedType::kQ6_K ? _mm512_cvtepi8_epi32(bytes) : _mm512_cvtepu8_epi32(bytes);
        scales[h] = Interleave(wide, wide);
      }
      QuadsOf<kType>::template ForEach<kQuads>(
          nibbles, high, [&](int quad, const __m512i(&w)[2]) __attribute__((always_inline)) {
            for (size_t h = 0; h < 2; h++)
              StoreProducts(w[h], scales[h], Plane(to, h, (j + quad) / 16) + (j + quad) % 16 * 64);
          });
      nibbles += kQuads * kNibbleQuadBytes;
      high += kType == PackedType::kQ6_K ? kQuads / 2 * kNibbleQuadBytes : kQuads * kBit4QuadBytes;
    }
  }

  BlockProducts(const TileInput& in)
      : unpacked_(in.unpacked), rows_(in.rows), is_first_(in.is_first) {
    for (size_t h = 0; h < 2; h++) {
      d_[h] = LoadHalves(in.block + 32 * h);
      if constexpr (HasMin(kType)) {
        const std::byte* mins = in.block + MinOffset(kGroupsPerBlock) + 16 * h;
        minus_dmin_[h] =
            _mm512_sub_ps(_mm512_setzero_ps(), LoadHalves(in.block + DminOffset() + 32 * h));
        const auto mins_of = [&](size_t g) {
          return _mm512_cvtepu8_epi32(LoadSixteen(mins + g * kPanelOutputs));
        };
        for (size_t g = 0; g < kGroupsPerBlock; g += 2)
          min_pairs_[h][g / 2] = Interleave(mins_of(g), mins_of(g + 1));
      }
    }
  }

  // A store waits for its sum, and holds up the products behind it. So kStores: step 0 stores the
  // tile before at `before`, as it begins its own.
  template <size_t kStep, bool kStores>
  [[gnu::always_inline]] void Multiply(size_t row, size_t, std::byte* before, std::byte*) const {
    const int8_t* values = rows_.values + row * rows_.value_stride;
    PrefetchTile<kStep, kSteps>(values, rows_.value_stride);
    Tiles::template Load<4>(values + kStep * 64, rows_.value_stride);
    const std::byte* at = unpacked_ + kStep * 2 * kTileBytes;
    MultiplyHalf<0, 5, 6, kStep == 0, kStores>(at, before);
    MultiplyHalf<2, 7, 5, kStep == 0, kStores>(at + kSteps * 2 * kTileBytes, before);
  }

  [[gnu::always_inline]] void Store(std::byte* sums) const {
    Unrolled<4>([&](auto i) { Tiles::template Store<i>(sums + i * kTileBytes, 64); });
  }

  [[gnu::always_inline]] void Finish(size_t row, size_t, const std::byte* sums, float* out) const {
    const __m512 scale = _mm512_set1_ps(rows_.scales[row * rows_.scale_stride]);
    TRELLIS_UNROLL
    for (size_t h = 0; h < 2; h++) {
      const std::byte* at = sums + h * 2 * kTileBytes;
      const __m512i low = _mm512_load_si512(at), high = _mm512_load_si512(at + kTileBytes);
      const __m512i total = _mm512_add_epi32(low, _mm512_slli_epi32(high, 8));
      __m512 v = is_first_ ? _mm512_setzero_ps() : _mm512_loadu_ps(out + 16 * h);
      v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total), _mm512_mul_ps(d_[h], scale), v);
      if constexpr (HasMin(kType)) {
        const int16_t* group_sums = rows_.group_sums + row * rows_.group_stride;
        __m512i mins = _mm512_setzero_si512();
        TRELLIS_UNROLL
        for (size_t pair = 0; pair < kGroupsPerBlock / 2; pair++)
          mins = _mm512_dpwssd_epi32(mins, min_pairs_[h][pair], Broadcast(group_sums + 2 * pair));
        v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(mins), _mm512_mul_ps(minus_dmin_[h], scale), v);
      }
      _mm512_storeu_ps(out + 16 * h, v);
    }
  }

 private:
  // Sums kSum and kSum + 1: of the low bytes and the high ones at `planes`.
  template <int kSum, int kLow, int kHigh, bool kBegins, bool kStores>
  [[gnu::always_inline]] static void MultiplyHalf(const std::byte* planes, std::byte* before) {
    Tiles::template Load<kLow>(planes, 64);
    if constexpr (kBegins) Begin<kSum, kStores>(before);
    Tiles::template AddUnsigned<kSum, 4, kLow>();
    Tiles::template Load<kHigh>(planes + kTileBytes, 64);
    if constexpr (kBegins) Begin<kSum + 1, kStores>(before);
    Tiles::template AddSigned<kSum + 1, 4, kHigh>();
  }
  template <int kSum, bool kStores>
  [[gnu::always_inline]] static void Begin(std::byte* before) {
    if constexpr (kStores) Tiles::template Store<kSum>(before + kSum * kTileBytes, 64);
    Tiles::template Zero<kSum>();
  }
  static std::byte* Plane(std::byte* to, size_t half, size_t step) {
    return to + (half * kSteps + step) * 2 * kTileBytes;
  }
  // Bytes of w times their outputs' scales, as low bytes and high ones.
  [[gnu::always_inline]] static void StoreProducts(__m512i w, __m512i scales, std::byte* to) {
    __m512i even = _mm512_and_si512(w, _mm512_set1_epi16(0xff)), odd = _mm512_srli_epi16(w, 8);
    if constexpr (kType == PackedType::kQ6_K) {
      even = _mm512_sub_epi16(even, _mm512_set1_epi16(32));
      odd = _mm512_sub_epi16(odd, _mm512_set1_epi16(32));
    }
    even = _mm512_mullo_epi16(even, scales);
    odd = _mm512_mullo_epi16(odd, scales);
    constexpr __mmask64 kOdd = 0xaaaaaaaaaaaaaaaa;
    *Vector(to) = _mm512_mask_blend_epi8(kOdd, even, _mm512_slli_epi16(odd, 8));
    *Vector(to + kTileBytes) = _mm512_mask_blend_epi8(kOdd, _mm512_srli_epi16(even, 8), odd);
  }

  const std::byte* unpacked_;
  TileRows rows_;
  bool is_first_;
  __m512 d_[2], minus_dmin_[2];
  __m512i min_pairs_[2][kGroupsPerBlock / 2];
};

// --- Types with f16 scales per group ---

// Unpacked: [half of the panel][group], each a tile of 32 depths as signed bytes. kWhole: a block
// of kGroupsPerBlock groups.
template <typename Tiles, PackedType kType, bool kWhole>
class GroupProducts {
 public:
  static constexpr size_t kSteps = kGroupsPerBlock, kLag = 2;
  static constexpr size_t kTilesOfRow = 2;  // a half of the panel each
  static constexpr TileConfig kConfig = {.row_bytes = {64, 64, 64, 64, 32, 32, 64, 64},
                                         .rows = {16, 16, 16, 16, 16, 16, 8, 8}};
  static constexpr size_t kSumBytes = kGroupsPerBlock * kTileBytes;  // [group]

  static void Unpack(const std::byte* block, size_t groups, std::byte* to) {
    const __m512i zero =
        _mm512_set1_epi8(static_cast<char>(HasGroupMin(kType) ? 0 : ZeroPoint(kType)));
    for (size_t g = 0; g < groups; g++, block += GroupBytes(kType)) {
      QuadsOf<kType>::template ForEach<kQuadsPerGroup>(
          block + GroupQuantOffset(kType), block + GroupBit4Offset(kType),
          [&](int quad, const __m512i(&w)[2]) __attribute__((always_inline)) {
            for (size_t h = 0; h < 2; h++)
              *Vector(to + At(h, g) + quad * 64) = _mm512_sub_epi8(w[h], zero);
          });
    }
  }

  GroupProducts(const TileInput& in)
      : unpacked_(in.unpacked), rows_(in.rows), groups_(in.groups), is_first_(in.is_first) {
    for (size_t g = 0; g < groups_; g++) {
      const std::byte* group = in.block + g * GroupBytes(kType);
      for (size_t h = 0; h < 2; h++) {
        d_[h][g] = LoadHalves(group + 32 * h);
        if constexpr (HasGroupMin(kType)) m_[h][g] = LoadHalves(group + kHalfRow + 32 * h);
      }
    }
  }

  // Each step stores the sum of two before it, for the reason given above.
  template <size_t kStep, bool kStores>
  [[gnu::always_inline]] void Multiply(size_t row, size_t half, std::byte* before,
                                       std::byte* sums) const {
    const int8_t* values = rows_.values + row * rows_.value_stride;
    if (half == 0) PrefetchTile<kStep, kSteps>(values, rows_.value_stride);
    MultiplyGroup<kStep>(values, half, kStep);
    if constexpr (kStep >= kLag) {
      StoreGroup<kStep - kLag>(sums);
    } else if constexpr (kStores) {
      StoreGroup<kSteps + kStep - kLag>(before);
    }
  }

  [[gnu::always_inline]] void Store(std::byte* sums) const {
    Unrolled<kLag>([&](auto i) { StoreGroup<kSteps - kLag + i>(sums); });
  }

  // Every group of a block that is not whole.
  [[gnu::always_inline]] void MultiplyAll(size_t row, size_t half, std::byte* sums) const {
    const int8_t* values = rows_.values + row * rows_.value_stride;
    for (size_t begin = 0; begin < groups_; begin += 4) {
      Unrolled<4>([&](auto i) __attribute__((always_inline)) {
        if (begin + i < groups_) MultiplyGroup<i>(values, half, begin + i);
      });
      Unrolled<4>([&](auto i) __attribute__((always_inline)) {
        if (begin + i < groups_) Tiles::template Store<i>(sums + (begin + i) * kTileBytes, 64);
      });
    }
  }

  [[gnu::always_inline]] void Finish(size_t row, size_t half, const std::byte* sums,
                                     float* out) const {
    out += half * kHalfPanel;
    const float* scales = rows_.scales + row * rows_.scale_stride;
    const float* scaled_sums = rows_.scaled_sums + row * rows_.scale_stride;
    __m512 v = is_first_ ? _mm512_setzero_ps() : _mm512_loadu_ps(out);
    const auto add = [&](size_t g) __attribute__((always_inline)) {
      const __m512 d = _mm512_mul_ps(d_[half][g], _mm512_set1_ps(scales[g]));
      const __m512i sum = _mm512_load_si512(sums + g * kTileBytes);
      v = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), d, v);
      if constexpr (HasGroupMin(kType))
        v = _mm512_fmadd_ps(m_[half][g], _mm512_set1_ps(scaled_sums[g]), v);
    };
    if constexpr (kWhole) {
      Unrolled<kGroupsPerBlock>(add);
    } else {
      for (size_t g = 0; g < groups_; g++) add(g);
    }
    _mm512_storeu_ps(out, v);
  }

 private:
  template <size_t kStep>
  [[gnu::always_inline]] void MultiplyGroup(const int8_t* values, size_t half, size_t group) const {
    constexpr int kSum = kStep % 4, kA = 4 + kStep % 2, kB = 6 + kStep % 2;
    Tiles::template Load<kA>(values + group * kGroupDepth, rows_.value_stride);
    Tiles::template Load<kB>(unpacked_ + At(half, group), 64);
    Tiles::template Zero<kSum>();
    Tiles::template AddSigned<kSum, kA, kB>();
  }
  template <size_t kGroup>
  [[gnu::always_inline]] static void StoreGroup(std::byte* sums) {
    Tiles::template Store<kGroup % 4>(sums + kGroup * kTileBytes, 64);
  }
  static constexpr size_t At(size_t half, size_t group) {
    return (half * kGroupsPerBlock + group) * kQuadsPerGroup * 64;
  }

  const std::byte* unpacked_;
  TileRows rows_;
  size_t groups_;
  bool is_first_;
  __m512 d_[2][kGroupsPerBlock], m_[2][kGroupsPerBlock];
};

}  // namespace
}  // namespace trellis
