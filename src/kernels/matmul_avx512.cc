// AVX-512 with VNNI. A panel is unpacked to unsigned bytes while the first tile of rows runs over
// it, and read as bytes by the tiles that follow; so one row (decode) and hundreds (prefill) are
// the same code and the same bits.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "base/half.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// Rows of a tile. 12 x 2 accumulators, 2 weights and temporaries fill the 32 registers; kinds that
// keep two accumulators per output have half of it.
constexpr int kFoldRows = 12;
constexpr int kGroupRows = 6;

// acc += dot(unsigned bytes of w, the four signed bytes at a). g++ 12 copies and spills the
// accumulators of the intrinsic (half the speed); the assembly also broadcasts from memory.
inline void Dot(__m512i& acc, __m512i w, const int8_t* a) {
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(acc)
      : "v"(w), "m"(*reinterpret_cast<const int32_t*>(a)));
}

inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// 16 bytes -> 16 lanes of 32 bits, each holding the value in both 16-bit halves.
inline __m512i BothHalves(__m512i lanes) {
  return _mm512_or_si512(lanes, _mm512_slli_epi32(lanes, 16));
}

// ---- Unpacking
// ----------------------------------------------------------------------------------------------------

// A quad's nibbles, and its fifth bits, as unsigned bytes of outputs 0..15 and 16..31.
template <bool kBit4>
inline void UnpackQuad(__m512i v, const std::byte* bits, __m512i* x0, __m512i* x1) {
  const __m512i nibbles = _mm512_set1_epi8(0x0f);
  *x0 = _mm512_and_si512(v, nibbles);
  *x1 = _mm512_and_si512(_mm512_srli_epi16(v, 4), nibbles);
  if constexpr (kBit4) {
    uint64_t words[2];
    std::memcpy(words, bits, sizeof(words));
    const __m512i bit4 = _mm512_set1_epi8(16);
    *x0 = _mm512_mask_add_epi8(*x0, words[0], *x0, bit4);
    *x1 = _mm512_mask_add_epi8(*x1, words[1], *x1, bit4);
  }
}

template <PackedType kType>
void UnpackGroups(const std::byte* block, size_t groups, uint8_t* to) {
  for (size_t g = 0; g < groups; g++) {
    const std::byte* q = block + GroupQuantOffset(kType);
    const std::byte* bits = block + GroupBit4Offset(kType);
    for (size_t j = 0; j < kQuadsPerGroup; j++) {
      __m512i w0, w1;
      UnpackQuad<HasBit4(kType)>(_mm512_loadu_si512(q + j * kNibbleQuadBytes),
                                 bits + j * kBit4QuadBytes, &w0, &w1);
      _mm512_store_si512(to, w0);
      _mm512_store_si512(to + 64, w1);
      to += kByteQuadBytes;
    }
    block += GroupBytes(kType);
  }
}

// (q * sc + c) >> shift for 64 bytes of q given as even and odd bytes in 16-bit lanes.
template <int kShift>
inline __m512i Fold(__m512i even, __m512i odd, __m512i sc, __m512i c) {
  const __m512i low = _mm512_srli_epi16(_mm512_add_epi16(_mm512_mullo_epi16(even, sc), c), kShift);
  const __m512i high =
      _mm512_slli_epi16(_mm512_add_epi16(_mm512_mullo_epi16(odd, sc), c), 8 - kShift);
  // low | (high & 0xff00)
  return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi16(static_cast<int16_t>(0xff00)),
                                   0xf8);
}

template <PackedType kType>
void UnpackAffineBlock(const std::byte* block, size_t groups, uint8_t* to) {
  constexpr int kShift = FoldShift(kType);
  const __m512i nibble = _mm512_set1_epi16(0x000f);
  const __m512i low_byte = _mm512_set1_epi16(0x00ff);
  const __m512i center = _mm512_set1_epi32((128 << kShift) + (1 << (kShift - 1)));
  __m512 ratio[2];
  for (int h = 0; h < 2; h++) {
    const __m512 d = LoadHalves(block + 32 * h), dmin = LoadHalves(block + DminOffset() + 32 * h);
    const __mmask16 nonzero = _mm512_cmp_ps_mask(d, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    ratio[h] = _mm512_maskz_div_ps(nonzero, dmin, d);
  }
  const std::byte* q = block + NibbleOffset(groups);
  const std::byte* bits = block + Bit4Offset(groups);
  for (size_t g = 0; g < groups; g++) {
    __m512i sc[2], c[2];
    for (int h = 0; h < 2; h++) {
      const auto* scales =
          reinterpret_cast<const __m128i*>(block + ScOffset() + g * kPanelOutputs + 16 * h);
      const auto* mins =
          reinterpret_cast<const __m128i*>(block + MinOffset(groups) + g * kPanelOutputs + 16 * h);
      sc[h] = BothHalves(_mm512_cvtepu8_epi32(_mm_loadu_si128(scales)));
      const __m512 m = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(mins)));
      const __m512i offset =
          _mm512_sub_epi32(center, _mm512_cvtps_epi32(_mm512_mul_ps(m, ratio[h])));
      c[h] = BothHalves(offset);
    }
    for (size_t j = 0; j < kQuadsPerGroup; j++) {
      const __m512i v = _mm512_loadu_si512(q);
      q += kNibbleQuadBytes;
      __m512i w0, w1;
      if constexpr (kType == PackedType::kQ4_K) {
        w0 = Fold<kShift>(_mm512_and_si512(v, nibble),
                          _mm512_and_si512(_mm512_srli_epi16(v, 8), nibble), sc[0], c[0]);
        w1 = Fold<kShift>(_mm512_and_si512(_mm512_srli_epi16(v, 4), nibble),
                          _mm512_srli_epi16(v, 12), sc[1], c[1]);
      } else {
        __m512i x0, x1;
        UnpackQuad<true>(v, bits, &x0, &x1);
        bits += kBit4QuadBytes;
        w0 = Fold<kShift>(_mm512_and_si512(x0, low_byte), _mm512_srli_epi16(x0, 8), sc[0], c[0]);
        w1 = Fold<kShift>(_mm512_and_si512(x1, low_byte), _mm512_srli_epi16(x1, 8), sc[1], c[1]);
      }
      _mm512_store_si512(to, w0);
      _mm512_store_si512(to + 64, w1);
      to += kByteQuadBytes;
    }
  }
}

void UnpackSixBitBlock(const std::byte* block, size_t groups, uint8_t* to) {
  const __m512i nibbles = _mm512_set1_epi8(0x0f), bits45 = _mm512_set1_epi8(0x30);
  const std::byte* q = block + Q6NibbleOffset(groups);
  const std::byte* high = block + Q6HighOffset(groups);
  // (low & 0x0f) | (high & 0x30)
  const auto join = [&](__m512i low, __m512i h) {
    return _mm512_or_si512(_mm512_and_si512(low, nibbles), _mm512_and_si512(h, bits45));
  };
  for (size_t j = 0; j < groups * kQuadsPerGroup; j += 2) {
    const __m512i a = _mm512_loadu_si512(q), b = _mm512_loadu_si512(q + kNibbleQuadBytes);
    const __m512i h = _mm512_loadu_si512(high);
    _mm512_store_si512(to, join(a, _mm512_slli_epi16(h, 4)));
    _mm512_store_si512(to + 64, join(_mm512_srli_epi16(a, 4), _mm512_slli_epi16(h, 2)));
    _mm512_store_si512(to + 128, join(b, h));
    _mm512_store_si512(to + 192, join(_mm512_srli_epi16(b, 4), _mm512_srli_epi16(h, 2)));
    q += 2 * kNibbleQuadBytes;
    high += kNibbleQuadBytes;
    to += 2 * kByteQuadBytes;
  }
}

// ---- Tiles: kRows rows x one panel, one block
// -----------------------------------------------------------------------

using Sums = __m512[][2];  // [rows][halves of the panel]

template <int kRows>
inline void FoldedBlock(const uint8_t* w, const std::byte* block, size_t groups, float fold_scale,
                        const TileRows& rows, Sums out) {
  __m512i acc[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    acc[r][0] = acc[r][1] = _mm512_set1_epi32(-128 * rows.block_sums[r * rows.scale_stride]);
  }
  const int8_t* a = rows.values;
  for (size_t j = 0; j < groups * kQuadsPerGroup; j++) {
    const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      Dot(acc[r][0], w0, a + r * rows.value_stride);
      Dot(acc[r][1], w1, a + r * rows.value_stride);
    }
    w += kByteQuadBytes;
    a += 4;
  }
  const __m512 factor = _mm512_set1_ps(fold_scale);
  const __m512 d0 = _mm512_mul_ps(LoadHalves(block), factor),
               d1 = _mm512_mul_ps(LoadHalves(block + 32), factor);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m512 s = _mm512_set1_ps(rows.scales[r * rows.scale_stride]);
    out[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][0]), _mm512_mul_ps(d0, s), out[r][0]);
    out[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][1]), _mm512_mul_ps(d1, s), out[r][1]);
  }
}

template <int kRows>
inline void SixBitBlock(const uint8_t* w, const std::byte* block, size_t groups,
                        const TileRows& rows, Sums out) {
  __m512i total[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) total[r][0] = total[r][1] = _mm512_setzero_si512();
  const int8_t* a = rows.values;
  const std::byte* scales = block + Q6ScOffset();
  for (size_t g = 0; g < 2 * groups; g++) {
    __m512i acc[kRows][2];
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      acc[r][0] = acc[r][1] =
          _mm512_set1_epi32(-32 * rows.half_sums[2 * r * rows.group_stride + g]);
    }
    TRELLIS_UNROLL
    for (int j = 0; j < 4; j++) {
      const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        Dot(acc[r][0], w0, a + r * rows.value_stride);
        Dot(acc[r][1], w1, a + r * rows.value_stride);
      }
      w += kByteQuadBytes;
      a += 4;
    }
    const __m512i s0 =
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
    const __m512i s1 =
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + 16)));
    scales += kPanelOutputs;
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      total[r][0] = _mm512_add_epi32(total[r][0], _mm512_mullo_epi32(acc[r][0], s0));
      total[r][1] = _mm512_add_epi32(total[r][1], _mm512_mullo_epi32(acc[r][1], s1));
    }
  }
  const __m512 d0 = LoadHalves(block), d1 = LoadHalves(block + 32);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m512 s = _mm512_set1_ps(rows.scales[r * rows.scale_stride]);
    out[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][0]), _mm512_mul_ps(d0, s), out[r][0]);
    out[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][1]), _mm512_mul_ps(d1, s), out[r][1]);
  }
}

// `w`: the block's bytes; for kQ8_0 they are read where they are.
template <PackedType kType, int kRows>
inline void GroupedBlock(const uint8_t* w, const std::byte* block, size_t groups,
                         const TileRows& rows, Sums out) {
  const int8_t* a = rows.values;
  for (size_t g = 0; g < groups; g++) {
    if constexpr (kType == PackedType::kQ8_0)
      w = reinterpret_cast<const uint8_t*>(block + GroupQuantOffset(kType));
    __m512i acc[kRows][2];
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const int zero = HasGroupMin(kType) ? 0 : ZeroPoint(kType);
      acc[r][0] = acc[r][1] = _mm512_set1_epi32(-zero * rows.group_sums[r * rows.group_stride + g]);
    }
    TRELLIS_UNROLL
    for (size_t j = 0; j < kQuadsPerGroup; j++) {
      const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        Dot(acc[r][0], w0, a + r * rows.value_stride);
        Dot(acc[r][1], w1, a + r * rows.value_stride);
      }
      w += kByteQuadBytes;
      a += 4;
    }
    const __m512 d0 = LoadHalves(block), d1 = LoadHalves(block + 32);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512 s = _mm512_set1_ps(rows.scales[r * rows.scale_stride + g]);
      out[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][0]), _mm512_mul_ps(d0, s), out[r][0]);
      out[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[r][1]), _mm512_mul_ps(d1, s), out[r][1]);
    }
    if constexpr (HasGroupMin(kType)) {
      const __m512 m0 = LoadHalves(block + kHalfRow), m1 = LoadHalves(block + kHalfRow + 32);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        const __m512 sum = _mm512_set1_ps(rows.scaled_sums[r * rows.scale_stride + g]);
        out[r][0] = _mm512_fmadd_ps(m0, sum, out[r][0]);
        out[r][1] = _mm512_fmadd_ps(m1, sum, out[r][1]);
      }
    }
    block += GroupBytes(kType);
  }
}

template <PackedType kType>
inline __m512 LoadWeights(const std::byte* p) {
  if constexpr (kType == PackedType::kF32) return _mm512_loadu_ps(p);
  if constexpr (kType == PackedType::kF16) return LoadHalves(p);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

template <PackedType kType, int kRows>
inline void FloatBlock(const std::byte* block, size_t groups, const float* x, size_t x_stride,
                       Sums out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  __m512 acc[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) acc[r][0] = out[r][0], acc[r][1] = out[r][1];
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    const __m512 w0 = LoadWeights<kType>(block), w1 = LoadWeights<kType>(block + 16 * kElement);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m512 v = _mm512_set1_ps(x[r * x_stride + k]);
      acc[r][0] = _mm512_fmadd_ps(v, w0, acc[r][0]);
      acc[r][1] = _mm512_fmadd_ps(v, w1, acc[r][1]);
    }
    block += kPanelOutputs * kElement;
  }
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) out[r][0] = acc[r][0], out[r][1] = acc[r][1];
}

// ---- Panels
// ---------------------------------------------------------------------------------------------------------

struct Call {
  const PackedMatrix& w;
  const Activations& x;
  const float* bias;
  float* out;
  size_t out_stride;
  uint8_t* scratch;
};

void StoreRow(const Call& call, size_t panel, size_t row, const __m512 sums[2]) {
  for (size_t h = 0; h < 2; h++) {
    const size_t output = panel * kPanelOutputs + 16 * h;
    if (output >= call.w.num_outputs) return;
    const size_t left = call.w.num_outputs - output;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1);
    __m512 v = sums[h];
    if (call.bias != nullptr) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, call.bias + output));
    _mm512_mask_storeu_ps(call.out + row * call.out_stride + output, mask, v);
  }
}

enum class Unpack { kNow, kDone };  // whether the panel is already in scratch

template <PackedType kType, int kRows>
void Tile(const Call& call, size_t panel, size_t row, Unpack unpack) {
  __m512 sums[kRows][2];
  for (int r = 0; r < kRows; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
  const size_t blocks = BlocksFor(call.w.depth);
  const std::byte* block = call.w.panels + panel * call.w.panel_bytes();
  uint8_t* bytes = call.scratch;
  for (size_t b = 0; b < blocks; b++) {
    const size_t groups = GroupsInBlock(call.w.depth, b);
    if constexpr (FormFor(kType) == ActivationForm::kF32) {
      FloatBlock<kType, kRows>(block, groups,
                               call.x.f32 + row * call.x.f32_stride + b * kBlockDepth,
                               call.x.f32_stride, sums);
    } else if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
      if constexpr (kType != PackedType::kQ8_0) {
        if (unpack == Unpack::kNow) UnpackGroups<kType>(block, groups, bytes);
      }
      GroupedBlock<kType, kRows>(bytes, block, groups, TileRowsAt(call.x.per_group, row, b), sums);
    } else if constexpr (kType == PackedType::kQ6_K) {
      if (unpack == Unpack::kNow) UnpackSixBitBlock(block, groups, bytes);
      SixBitBlock<kRows>(bytes, block, groups, TileRowsAt(call.x.per_block, row, b), sums);
    } else {
      if (unpack == Unpack::kNow) UnpackAffineBlock<kType>(block, groups, bytes);
      FoldedBlock<kRows>(bytes, block, groups, static_cast<float>(1 << FoldShift(kType)),
                         TileRowsAt(call.x.per_block, row, b), sums);
    }
    bytes += groups * kQuadsPerGroup * kByteQuadBytes;
    block += BlockBytes(kType, groups);
  }
  for (int r = 0; r < kRows; r++) StoreRow(call, panel, row + static_cast<size_t>(r), sums[r]);
}

// The last `num_rows` < kMax rows.
template <PackedType kType, int kMax>
void TailTile(const Call& call, size_t panel, size_t row, size_t num_rows, Unpack unpack) {
  if constexpr (kMax > 1) {
    if (num_rows == kMax - 1) return Tile<kType, kMax - 1>(call, panel, row, unpack);
    TailTile<kType, kMax - 1>(call, panel, row, num_rows, unpack);
  }
}

template <PackedType kType>
void Panels(const Call& call, size_t row_begin, size_t row_end, size_t panel_begin,
            size_t panel_end) {
  constexpr bool folded = kType == PackedType::kQ4_K || kType == PackedType::kQ5_K;
  constexpr int kRows = folded || FormFor(kType) == ActivationForm::kF32 ? kFoldRows : kGroupRows;
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    Unpack unpack = Unpack::kNow;
    size_t row = row_begin;
    for (; row + kRows <= row_end; row += kRows) {
      Tile<kType, kRows>(call, panel, row, unpack);
      unpack = Unpack::kDone;
    }
    TailTile<kType, kRows>(call, panel, row, row_end - row, unpack);
  }
}

void Matmul(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
            size_t panel_begin, size_t panel_end, const float* bias, float* out, size_t out_stride,
            std::byte* scratch) {
  const Call call{w, x, bias, out, out_stride, reinterpret_cast<uint8_t*>(scratch)};
  WithType(w.type, [&](auto type) {
    Panels<decltype(type)::value>(call, row_begin, row_end, panel_begin, panel_end);
  });
}

// ---- Activations
// ----------------------------------------------------------------------------------------------------

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
  return {.reading = PackedReading::kFolded,
          .quantize_rows = QuantizeRowsWith<Quantizer>,
          .matmul = Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
