// AVX2 without dot-product instructions. Panels are unpacked to signed bytes (folded, as the oracle
// defines) and multiplied as |w| x sign(a, w), whose pairs fit 16 bits; so the bits are the
// oracle's.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/kernels_internal.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

constexpr int kRows = 4;     // rows of a tile
constexpr int kVectors = 4;  // 8 outputs each

inline __m256 LoadHalves(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256i Load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void Store(int8_t* p, __m256i v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
}
inline __m128i Load8(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
inline __m256i BothHalves(__m256i lanes) {
  return _mm256_or_si256(lanes, _mm256_slli_epi32(lanes, 16));
}

// ---- Unpacking one block to signed bytes [quad][output][4]
// ------------------------------------------------------------

template <int kShift>
inline __m256i Fold(__m256i q, __m256i sc, __m256i c) {
  const __m256i low_byte = _mm256_set1_epi16(0x00ff);
  const __m256i even = _mm256_and_si256(q, low_byte), odd = _mm256_srli_epi16(q, 8);
  const __m256i low = _mm256_srli_epi16(_mm256_add_epi16(_mm256_mullo_epi16(even, sc), c), kShift);
  const __m256i high = _mm256_srli_epi16(_mm256_add_epi16(_mm256_mullo_epi16(odd, sc), c), kShift);
  const __m256i folded = _mm256_or_si256(low, _mm256_slli_epi16(high, 8));
  return _mm256_xor_si256(folded, _mm256_set1_epi8(static_cast<char>(0x80)));
}

// 16 where the bit is set: one byte for each of the 32 bits.
inline __m256i BitsToSixteens(uint32_t bits) {
  const __m256i spread =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(bits)),
                          _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
  const __m256i mask = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ULL));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, mask), mask);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

template <PackedType kType>
void UnpackAffineBlock(const std::byte* block, size_t groups, int8_t* to) {
  constexpr int kShift = FoldShift(kType);
  const __m256i nibbles = _mm256_set1_epi8(0x0f);
  const __m256i center = _mm256_set1_epi32((128 << kShift) + (1 << (kShift - 1)));
  __m256 ratio[kVectors];
  for (int v = 0; v < kVectors; v++) {
    const __m256 d = LoadHalves(block + 16 * v), dmin = LoadHalves(block + DminOffset() + 16 * v);
    const __m256 nonzero = _mm256_cmp_ps(d, _mm256_setzero_ps(), _CMP_NEQ_UQ);
    ratio[v] = _mm256_and_ps(nonzero, _mm256_div_ps(dmin, d));
  }
  const std::byte* q = block + NibbleOffset(groups);
  const std::byte* bits = block + Bit4Offset(groups);
  for (size_t g = 0; g < groups; g++) {
    __m256i sc[kVectors], c[kVectors];
    for (int v = 0; v < kVectors; v++) {
      sc[v] =
          BothHalves(_mm256_cvtepu8_epi32(Load8(block + ScOffset() + g * kPanelOutputs + 8 * v)));
      const __m256 m = _mm256_cvtepi32_ps(
          _mm256_cvtepi8_epi32(Load8(block + MinOffset(groups) + g * kPanelOutputs + 8 * v)));
      c[v] = BothHalves(_mm256_sub_epi32(center, _mm256_cvtps_epi32(_mm256_mul_ps(m, ratio[v]))));
    }
    for (size_t j = 0; j < kQuadsPerGroup; j++) {
      const __m256i packed[2] = {Load(q), Load(q + 32)};
      uint32_t words[kVectors] = {};
      if constexpr (kType == PackedType::kU5) std::memcpy(words, bits, sizeof(words));
      for (int v = 0; v < kVectors; v++) {
        const __m256i p = packed[v % 2];
        __m256i x = _mm256_and_si256(v < 2 ? p : _mm256_srli_epi16(p, 4), nibbles);
        if constexpr (kType == PackedType::kU5) x = _mm256_or_si256(x, BitsToSixteens(words[v]));
        Store(to + 32 * v, Fold<kShift>(x, sc[v], c[v]));
      }
      q += kNibbleQuadBytes;
      bits += 2 * sizeof(uint64_t);
      to += kByteQuadBytes;
    }
  }
}

void UnpackSixBitBlock(const std::byte* block, size_t groups, int8_t* to) {
  const __m256i nibbles = _mm256_set1_epi8(0x0f), bits45 = _mm256_set1_epi8(0x30),
                center = _mm256_set1_epi8(32);
  const std::byte* q = block + U6NibbleOffset(groups);
  const std::byte* high = block + U6HighOffset(groups);
  const auto join = [&](__m256i low, __m256i h) {
    const __m256i u = _mm256_or_si256(_mm256_and_si256(low, nibbles), _mm256_and_si256(h, bits45));
    return _mm256_sub_epi8(u, center);
  };
  for (size_t j = 0; j < groups * kQuadsPerGroup; j += 2) {
    for (size_t c = 0; c < 2; c++) {  // outputs 8c.. and 16 + 8c..
      const __m256i a = Load(q + 32 * c), b = Load(q + kNibbleQuadBytes + 32 * c),
                    h = Load(high + 32 * c);
      int8_t* at = to + 32 * c;
      Store(at, join(a, _mm256_slli_epi16(h, 4)));
      Store(at + 64, join(_mm256_srli_epi16(a, 4), _mm256_slli_epi16(h, 2)));
      Store(at + kByteQuadBytes, join(b, h));
      Store(at + kByteQuadBytes + 64, join(_mm256_srli_epi16(b, 4), _mm256_srli_epi16(h, 2)));
    }
    q += 2 * kNibbleQuadBytes;
    high += kNibbleQuadBytes;
    to += 2 * kByteQuadBytes;
  }
}

void UnpackS8Block(const std::byte* block, size_t groups, int8_t* to) {
  const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
  for (size_t g = 0; g < groups; g++) {
    const std::byte* w = block + g * kS8GroupBytes + kHalfRow;
    for (size_t i = 0; i < kQuadsPerGroup * kByteQuadBytes; i += 32) {
      Store(to, _mm256_xor_si256(Load(w + i), offset));
      to += 32;
    }
  }
}

// ---- Tiles
// -------------------------------------------------------------------------------------------------------------

struct Rows {
  const int8_t* values;
  size_t value_stride;
  const float* scales;
  size_t scale_stride;
};

// kNum rows x 8 outputs x num_quads.
template <int kNum>
inline void Dot(const int8_t* w, const int8_t* a, size_t value_stride, size_t num_quads,
                __m256i* acc) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (size_t j = 0; j < num_quads; j++) {
    const __m256i v = Load(w + j * kByteQuadBytes), magnitude = _mm256_abs_epi8(v);
    TRELLIS_UNROLL
    for (int r = 0; r < kNum; r++) {
      int32_t quad;
      std::memcpy(&quad, a + static_cast<size_t>(r) * value_stride + 4 * j, sizeof(quad));
      const __m256i pairs =
          _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(_mm256_set1_epi32(quad), v));
      acc[r] = _mm256_add_epi32(acc[r], _mm256_madd_epi16(pairs, ones));
    }
  }
}

// One block, one vector of 8 outputs.
template <PackedType kType, int kNum>
inline void BlockVector(const int8_t* w, const std::byte* block, size_t groups, int vector,
                        const Rows& rows, __m256* out) {
  constexpr size_t kDepth = kType == PackedType::kU6   ? 16
                            : kType == PackedType::kS8 ? kGroupDepth
                                                       : kBlockDepth;
  const size_t depth = groups * kGroupDepth;
  __m256i total[kNum];
  for (int r = 0; r < kNum; r++) total[r] = _mm256_setzero_si256();
  for (size_t k = 0; k < depth; k += kDepth) {
    __m256i acc[kNum];
    for (int r = 0; r < kNum; r++) acc[r] = _mm256_setzero_si256();
    Dot<kNum>(w + k / 4 * kByteQuadBytes + 32 * vector, rows.values + k, rows.value_stride,
              std::min(kDepth, depth) / 4, acc);
    if constexpr (kType == PackedType::kU6) {
      const __m256i sc =
          _mm256_cvtepi8_epi32(Load8(block + U6ScOffset() + k / 16 * kPanelOutputs + 8 * vector));
      for (int r = 0; r < kNum; r++)
        total[r] = _mm256_add_epi32(total[r], _mm256_mullo_epi32(acc[r], sc));
      if (k + kDepth < depth) continue;
    } else {
      for (int r = 0; r < kNum; r++) total[r] = acc[r];
    }
    const std::byte* scales =
        kType == PackedType::kS8 ? block + k / kGroupDepth * kS8GroupBytes : block;
    __m256 d = LoadHalves(scales + 16 * vector);
    if constexpr (kType == PackedType::kU4 || kType == PackedType::kU5) {
      d = _mm256_mul_ps(d, _mm256_set1_ps(static_cast<float>(1 << FoldShift(kType))));
    }
    for (int r = 0; r < kNum; r++) {
      const __m256 s = _mm256_set1_ps(rows.scales[static_cast<size_t>(r) * rows.scale_stride]);
      out[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[r]), _mm256_mul_ps(d, s), out[r]);
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

template <PackedType kType, int kNum>
inline void FloatVector(const std::byte* panel, size_t depth, int vector, const float* x,
                        size_t x_stride, __m256* out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  for (size_t k = 0; k < depth; k++) {
    const __m256 w = LoadWeights<kType>(
        panel + (k * kPanelOutputs + 8 * static_cast<size_t>(vector)) * kElement);
    TRELLIS_UNROLL
    for (int r = 0; r < kNum; r++) {
      out[r] = _mm256_fmadd_ps(_mm256_set1_ps(x[static_cast<size_t>(r) * x_stride + k]), w, out[r]);
    }
  }
}

struct Call {
  const PackedMatrix& w;
  const Activations& x;
  const float* bias;
  float* out;
  size_t out_stride;
  int8_t* scratch;
};

template <PackedType kType>
void UnpackPanel(const Call& call, const std::byte* panel) {
  int8_t* to = call.scratch;
  for (size_t b = 0; b < BlocksFor(call.w.depth); b++) {
    const size_t groups = GroupsInBlock(call.w.depth, b);
    if constexpr (kType == PackedType::kU6) {
      UnpackSixBitBlock(panel, groups, to);
    } else if constexpr (kType == PackedType::kS8) {
      UnpackS8Block(panel, groups, to);
    } else {
      UnpackAffineBlock<kType>(panel, groups, to);
    }
    panel += BlockBytes(kType, groups);
    to += groups * kQuadsPerGroup * kByteQuadBytes;
  }
}

template <PackedType kType, int kNum>
void Tile(const Call& call, size_t panel_index, size_t row) {
  const size_t blocks = BlocksFor(call.w.depth);
  const std::byte* panel = call.w.panels + panel_index * call.w.panel_bytes();
  const QuantizedRows& q = call.x.quantized;
  for (int vector = 0; vector < kVectors; vector++) {
    const size_t output = panel_index * kPanelOutputs + 8 * static_cast<size_t>(vector);
    if (output >= call.w.num_outputs) return;
    __m256 sums[kNum];
    for (int r = 0; r < kNum; r++) sums[r] = _mm256_setzero_ps();
    if constexpr (!IsQuantized(kType)) {
      FloatVector<kType, kNum>(panel, call.w.depth, vector, call.x.f32 + row * call.x.f32_stride,
                               call.x.f32_stride, sums);
    } else {
      const std::byte* block = panel;
      for (size_t b = 0; b < blocks; b++) {
        const size_t groups = GroupsInBlock(call.w.depth, b);
        const Rows rows{q.values + row * q.value_stride() + b * kBlockDepth, q.value_stride(),
                        q.scales + row * blocks + b, blocks};
        BlockVector<kType, kNum>(call.scratch + b * kBlockDepth * kPanelOutputs, block, groups,
                                 vector, rows, sums);
        block += BlockBytes(kType, groups);
      }
    }
    const size_t num = std::min<size_t>(8, call.w.num_outputs - output);
    for (int r = 0; r < kNum; r++) {
      float lanes[8];
      _mm256_storeu_ps(lanes, sums[r]);
      float* to = call.out + (row + static_cast<size_t>(r)) * call.out_stride + output;
      for (size_t i = 0; i < num; i++)
        to[i] = call.bias != nullptr ? lanes[i] + call.bias[output + i] : lanes[i];
    }
  }
}

template <PackedType kType>
void Panels(const Call& call, size_t row_begin, size_t row_end, size_t panel_begin,
            size_t panel_end) {
  for (size_t panel = panel_begin; panel < panel_end; panel++) {
    if constexpr (IsQuantized(kType))
      UnpackPanel<kType>(call, call.w.panels + panel * call.w.panel_bytes());
    size_t row = row_begin;
    for (; row + kRows <= row_end; row += kRows) Tile<kType, kRows>(call, panel, row);
    for (; row < row_end; row++) Tile<kType, 1>(call, panel, row);
  }
}

void Matmul(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
            size_t panel_begin, size_t panel_end, const float* bias, float* out, size_t out_stride,
            std::byte* scratch) {
  const Call call{w, x, bias, out, out_stride, reinterpret_cast<int8_t*>(scratch)};
  const auto run = [&](auto panels) { panels(call, row_begin, row_end, panel_begin, panel_end); };
  switch (w.type) {
    case PackedType::kU4:
      return run(Panels<PackedType::kU4>);
    case PackedType::kU5:
      return run(Panels<PackedType::kU5>);
    case PackedType::kU6:
      return run(Panels<PackedType::kU6>);
    case PackedType::kS8:
      return run(Panels<PackedType::kS8>);
    case PackedType::kF16:
      return run(Panels<PackedType::kF16>);
    case PackedType::kBF16:
      return run(Panels<PackedType::kBF16>);
    case PackedType::kF32:
      return run(Panels<PackedType::kF32>);
  }
}

}  // namespace

MatmulKernels Avx2MatmulKernels() {
  return {.quantize_rows = ScalarMatmulKernels().quantize_rows, .matmul = Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
