// AVX-512 with VNNI. A panel is unpacked to unsigned bytes while the first tile of rows runs over
// it, and read as bytes by the tiles that follow; so one row (decode) and hundreds (prefill) are
// the same code and the same bits.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "kernels/kernels_internal.h"
#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// Rows of a tile. 12 x 2 accumulators, 2 weights and temporaries fill the 32 registers; quantised
// types keep two accumulators per output.
constexpr int kFloatRows = 12;
constexpr int kQuantizedRows = 6;

// acc += dot(unsigned bytes of w, the four signed bytes at a). g++ 12 copies and spills the
// accumulators of the intrinsic (half the speed); the assembly also broadcasts from memory.
inline void Dot(__m512i& acc, __m512i w, const int8_t* a) {
  using Quad [[gnu::may_alias]] = int32_t;
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*reinterpret_cast<const Quad*>(a)));
}

inline __m512 LoadHalves(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// 16 unsigned bytes -> 16 lanes of 32 bits.
inline __m512i LoadBytes(const std::byte* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// --- Unpacking ---

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

template <bool kBit4>
void UnpackQuads(const std::byte* q, const std::byte* bits, size_t quads, uint8_t* to) {
  for (size_t j = 0; j < quads; j++) {
    __m512i w0, w1;
    UnpackQuad<kBit4>(_mm512_loadu_si512(q + j * kNibbleQuadBytes), bits + j * kBit4QuadBytes, &w0,
                      &w1);
    _mm512_store_si512(to + j * kByteQuadBytes, w0);
    _mm512_store_si512(to + j * kByteQuadBytes + 64, w1);
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

template <PackedType kType>
void UnpackBlock(const std::byte* block, size_t groups, uint8_t* to) {
  if constexpr (kType == PackedType::kQ6_K) {
    UnpackSixBitBlock(block, groups, to);
  } else if constexpr (FormFor(kType) == ActivationForm::kPerBlock) {
    UnpackQuads<HasBit4(kType)>(block + NibbleOffset(groups), block + Bit4Offset(groups),
                                groups * kQuadsPerGroup, to);
  } else if constexpr (kType != PackedType::kQ8_0) {  // whose bytes are read where they are
    for (size_t g = 0; g < groups; g++) {
      UnpackQuads<HasBit4(kType)>(block + GroupQuantOffset(kType), block + GroupBit4Offset(kType),
                                  kQuadsPerGroup, to);
      block += GroupBytes(kType);
      to += kQuadsPerGroup * kByteQuadBytes;
    }
  }
}

// --- Tiles: kRows rows x one panel, one block ---

using Sums = __m512[][2];  // [rows][halves of the panel]

// acc += kQuads quads.
template <int kQuads, int kRows>
inline void AddQuads(const uint8_t* w, const int8_t* a, size_t stride, __m512i (&acc)[kRows][2]) {
  TRELLIS_UNROLL
  for (int j = 0; j < kQuads; j++) {
    const __m512i w0 = _mm512_loadu_si512(w), w1 = _mm512_loadu_si512(w + 64);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      Dot(acc[r][0], w0, a + r * stride);
      Dot(acc[r][1], w1, a + r * stride);
    }
    w += kByteQuadBytes;
    a += 4;
  }
}

// out += d x scale of the row x total.
template <int kRows>
inline void AddScaled(const std::byte* d, const TileRows& rows, size_t scale,
                      const __m512i (&total)[kRows][2], Sums out) {
  const __m512 d0 = LoadHalves(d), d1 = LoadHalves(d + 32);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m512 s = _mm512_set1_ps(rows.scales[r * rows.scale_stride + scale]);
    out[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][0]), _mm512_mul_ps(d0, s), out[r][0]);
    out[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(total[r][1]), _mm512_mul_ps(d1, s), out[r][1]);
  }
}

// out -= dmin x scale of the row x (mins . sums of the groups).
template <int kRows>
inline void SubtractMins(const std::byte* block, const TileRows& rows, Sums out) {
  __m512i total[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) total[r][0] = total[r][1] = _mm512_setzero_si512();
  for (size_t g = 0; g < kGroupsPerBlock; g += 2) {  // two 16-bit products a lane
    const std::byte* m = block + MinOffset(kGroupsPerBlock) + g * kPanelOutputs;
    __m512i mins[2];
    for (int h = 0; h < 2; h++) {
      mins[h] = _mm512_or_si512(LoadBytes(m + 16 * h),
                                _mm512_slli_epi32(LoadBytes(m + kPanelOutputs + 16 * h), 16));
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      int32_t pair;
      std::memcpy(&pair, rows.group_sums + r * rows.group_stride + g, sizeof(pair));
      const __m512i sums = _mm512_set1_epi32(pair);
      total[r][0] = _mm512_add_epi32(total[r][0], _mm512_madd_epi16(mins[0], sums));
      total[r][1] = _mm512_add_epi32(total[r][1], _mm512_madd_epi16(mins[1], sums));
    }
  }
  const __m512 d0 = LoadHalves(block + DminOffset()), d1 = LoadHalves(block + DminOffset() + 32);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m512 s = _mm512_set1_ps(rows.scales[r * rows.scale_stride]);
    out[r][0] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(total[r][0]), _mm512_mul_ps(d0, s), out[r][0]);
    out[r][1] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(total[r][1]), _mm512_mul_ps(d1, s), out[r][1]);
  }
}

// total += acc x the integer scales of the panel's halves.
template <int kRows>
inline void AddProducts(const __m512i (&acc)[kRows][2], __m512i s0, __m512i s1,
                        __m512i (&total)[kRows][2]) {
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    total[r][0] = _mm512_add_epi32(total[r][0], _mm512_mullo_epi32(acc[r][0], s0));
    total[r][1] = _mm512_add_epi32(total[r][1], _mm512_mullo_epi32(acc[r][1], s1));
  }
}

template <int kRows>
inline void AffineBlock(const uint8_t* w, const std::byte* block, const TileRows& rows, Sums out) {
  __m512i total[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) total[r][0] = total[r][1] = _mm512_setzero_si512();
  const std::byte* scales = block + ScOffset();
  for (size_t g = 0; g < kGroupsPerBlock; g++) {
    __m512i acc[kRows][2];
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) acc[r][0] = acc[r][1] = _mm512_setzero_si512();
    AddQuads<kQuadsPerGroup, kRows>(w, rows.values + g * kGroupDepth, rows.value_stride, acc);
    w += kQuadsPerGroup * kByteQuadBytes;
    const __m512i s0 = LoadBytes(scales), s1 = LoadBytes(scales + 16);
    scales += kPanelOutputs;
    AddProducts<kRows>(acc, s0, s1, total);
  }
  AddScaled<kRows>(block, rows, 0, total, out);
  SubtractMins<kRows>(block, rows, out);
}

template <int kRows>
inline void SixBitBlock(const uint8_t* w, const std::byte* block, const TileRows& rows, Sums out) {
  __m512i total[kRows][2];
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) total[r][0] = total[r][1] = _mm512_setzero_si512();
  const std::byte* scales = block + Q6ScOffset();
  for (size_t g = 0; g < 2 * kGroupsPerBlock; g++) {
    __m512i acc[kRows][2];
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      acc[r][0] = acc[r][1] =
          _mm512_set1_epi32(-32 * rows.half_sums[2 * r * rows.group_stride + g]);
    }
    AddQuads<kQuadsPerGroup / 2, kRows>(w, rows.values + 16 * g, rows.value_stride, acc);
    w += kQuadsPerGroup / 2 * kByteQuadBytes;
    const __m512i s0 =
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
    const __m512i s1 =
        _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales + 16)));
    scales += kPanelOutputs;
    AddProducts<kRows>(acc, s0, s1, total);
  }
  AddScaled<kRows>(block, rows, 0, total, out);
}

// `w`: the block's bytes; for kQ8_0 they are read where they are.
template <PackedType kType, int kRows>
inline void GroupedBlock(const uint8_t* w, const std::byte* block, size_t groups,
                         const TileRows& rows, Sums out) {
  for (size_t g = 0; g < groups; g++) {
    if constexpr (kType == PackedType::kQ8_0)
      w = reinterpret_cast<const uint8_t*>(block + GroupQuantOffset(kType));
    __m512i acc[kRows][2];
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const int zero = HasGroupMin(kType) ? 0 : ZeroPoint(kType);
      acc[r][0] = acc[r][1] = _mm512_set1_epi32(-zero * rows.group_sums[r * rows.group_stride + g]);
    }
    AddQuads<kQuadsPerGroup, kRows>(w, rows.values + g * kGroupDepth, rows.value_stride, acc);
    w += kQuadsPerGroup * kByteQuadBytes;
    AddScaled<kRows>(block, rows, g, acc, out);
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

// --- Panels ---

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

// Not inlined: registers are for this alone.
template <PackedType kType, int kRows>
[[gnu::noinline]] void Tile(const Call& call, size_t panel, size_t row, Unpack unpack) {
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
    } else {
      if (unpack == Unpack::kNow) UnpackBlock<kType>(block, groups, bytes);
      const TileRows rows = TileRowsAt(call.x.quantized(kType), row, b);
      if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
        GroupedBlock<kType, kRows>(bytes, block, groups, rows, sums);
      } else if constexpr (kType == PackedType::kQ6_K) {
        SixBitBlock<kRows>(bytes, block, rows, sums);
      } else {
        AffineBlock<kRows>(bytes, block, rows, sums);
      }
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
  constexpr int kRows = FormFor(kType) == ActivationForm::kF32 ? kFloatRows : kQuantizedRows;
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
  return {.quantize_rows = QuantizeRowsWith<Quantizer>, .matmul = Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
