// AVX2 without dot-product instructions, in the loops of matmul_blocked.h.
//
// ARITHMETIC. vpmaddubsw multiplies unsigned weights by signed activations and leaves sums of two
// in 16 bits. There more of them are added while they must fit (4 bits: 8 x 2 x 15 x 127 < 2^15,
// so a whole group of 32; 5 bits: half of one; 6 bits: a quarter) before vpmaddwd widens them; for
// K-types it multiplies by the integer scale at the same time, so these are read exactly and a
// block needs one conversion to f32. 8-bit weights go as |w| x sign(a, w), which fits once.
#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "kernels/kernels_internal.h"
#include "kernels/matmul_blocked.h"
#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

using namespace packed;

// A tile is kTileRows rows x 2 vectors of 8 outputs: 8 sums, 2 weights, an activation and a product
// in 16 registers. One row alone takes all 4 vectors of a panel.
constexpr int kPanelVectors = 4;

inline __m256 LoadHalves(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m256i Load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void Store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
inline __m128i Load8(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
// Two neighbouring 16-bit numbers, or four 8-bit ones, in every lane.
inline __m256i Broadcast32(const void* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return _mm256_set1_epi32(bits);
}
// Lanes of 32 bits -> their low 16 bits, `low` below and `high` above.
inline __m256i PairHalves(__m256i low, __m256i high) {
  return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}

// --- Unpacking one block to bytes [quad][output][4] ---

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

// `bits`: the fifth bit plane, or null.
template <bool kBit4>
inline void UnpackNibbles(const std::byte* q, const std::byte* bits, size_t quads, uint8_t* to) {
  const __m256i nibbles = _mm256_set1_epi8(0x0f);
  for (size_t j = 0; j < quads; j++) {
    const __m256i a = Load(q), b = Load(q + 32);
    __m256i x[kPanelVectors] = {_mm256_and_si256(a, nibbles), _mm256_and_si256(b, nibbles),
                                _mm256_and_si256(_mm256_srli_epi16(a, 4), nibbles),
                                _mm256_and_si256(_mm256_srli_epi16(b, 4), nibbles)};
    uint32_t words[kPanelVectors];
    if constexpr (kBit4) std::memcpy(words, bits + j * kBit4QuadBytes, sizeof(words));
    for (int v = 0; v < kPanelVectors; v++) {
      if constexpr (kBit4) x[v] = _mm256_or_si256(x[v], BitsToSixteens(words[v]));
      Store(to + 32 * v, x[v]);
    }
    q += kNibbleQuadBytes;
    to += kByteQuadBytes;
  }
}

void UnpackSixBits(const std::byte* q, const std::byte* high, size_t quads, uint8_t* to) {
  const __m256i nibbles = _mm256_set1_epi8(0x0f), bits45 = _mm256_set1_epi8(0x30);
  const auto join = [&](__m256i low, __m256i h) {
    return _mm256_or_si256(_mm256_and_si256(low, nibbles), _mm256_and_si256(h, bits45));
  };
  for (size_t j = 0; j < quads; j += 2) {
    for (size_t c = 0; c < 2; c++) {  // outputs 8c.. and 16 + 8c..
      const __m256i a = Load(q + 32 * c), b = Load(q + kNibbleQuadBytes + 32 * c),
                    h = Load(high + 32 * c);
      uint8_t* at = to + 32 * c;
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

// Unsigned bytes; signed ones for kQ8_0.
template <PackedType kType>
void UnpackBlock(const std::byte* block, size_t groups, uint8_t* to) {
  if constexpr (kType == PackedType::kQ6_K) {
    UnpackSixBits(block + Q6NibbleOffset(groups), block + Q6HighOffset(groups),
                  groups * kQuadsPerGroup, to);
  } else if constexpr (FormFor(kType) == ActivationForm::kPerBlock) {
    UnpackNibbles<HasBit4(kType)>(block + NibbleOffset(groups), block + Bit4Offset(groups),
                                  groups * kQuadsPerGroup, to);
  } else {
    for (size_t g = 0; g < groups; g++) {
      if constexpr (kType == PackedType::kQ8_0) {
        const __m256i offset = _mm256_set1_epi8(static_cast<char>(0x80));
        for (size_t i = 0; i < kQuadsPerGroup * kByteQuadBytes; i += 32)
          Store(to + i, _mm256_xor_si256(Load(block + GroupQuantOffset(kType) + i), offset));
      } else {
        UnpackNibbles<HasBit4(kType)>(block + GroupQuantOffset(kType),
                                      block + GroupBit4Offset(kType), kQuadsPerGroup, to);
      }
      block += GroupBytes(kType);
      to += kQuadsPerGroup * kByteQuadBytes;
    }
  }
}

// --- Tiles: kRows rows x kVectors vectors of outputs, one block ---

template <int kRows, int kVectors>
using Ints = __m256i[kRows][kVectors];
template <int kRows, int kVectors>
using Floats = __m256[kRows][kVectors];

// sum += pairs, in 16 bits. Assembly, because g++ turns a chain of these into a tree, and spills
// its leaves.
inline void AddPairs(__m256i& sum, __m256i pairs) {
  asm("vpaddw %1, %0, %0" : "+x"(sum) : "x"(pairs));
}

// sum = products of kQuads quads, pairs added, in 16 bits.
template <PackedType kType, int kQuads, int kRows, int kVectors>
inline void Multiply(const uint8_t* w, const int8_t* a, size_t stride, Ints<kRows, kVectors>& sum) {
  TRELLIS_UNROLL
  for (int j = 0; j < kQuads; j++) {
    __m256i v[kVectors];
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++) v[i] = Load(w + j * kByteQuadBytes + 32 * i);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m256i quad = Broadcast32(a + static_cast<size_t>(r) * stride + 4 * j);
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++) {
        __m256i pairs;
        if constexpr (kType == PackedType::kQ8_0) {
          pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(v[i]), _mm256_sign_epi8(quad, v[i]));
        } else {
          pairs = _mm256_maddubs_epi16(v[i], quad);
        }
        if (j == 0) {
          sum[r][i] = pairs;
        } else {
          AddPairs(sum[r][i], pairs);
        }
      }
    }
  }
}

// total (+)= products of kQuads quads times the 16-bit factors, which are the same in both halves
// of a lane; in steps whose sums fit 16 bits.
template <PackedType kType, int kQuads, int kRows, int kVectors>
inline void AddProducts(const uint8_t* w, const int8_t* a, size_t stride, const __m256i* factors,
                        Ints<kRows, kVectors>& total) {
  constexpr int kStep = kType == PackedType::kQ8_0   ? 1
                        : kType == PackedType::kQ6_K ? 2
                        : HasBit4(kType)             ? 4
                                                     : 8;
  TRELLIS_UNROLL
  for (int j = 0; j < kQuads; j += kStep) {
    Ints<kRows, kVectors> sum;
    Multiply<kType, kStep, kRows, kVectors>(w + j * kByteQuadBytes, a + 4 * j, stride, sum);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++)
        total[r][i] = _mm256_add_epi32(total[r][i], _mm256_madd_epi16(sum[r][i], factors[i]));
    }
  }
}

template <int kRows, int kVectors>
inline void Clear(Ints<kRows, kVectors>& total) {
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++) total[r][i] = _mm256_setzero_si256();
  }
}

// out += scales of the weights x scales of the rows x total.
template <int kRows, int kVectors>
inline void AddScaled(const std::byte* d, const TileRows& rows, size_t scale,
                      const Ints<kRows, kVectors>& total, Floats<kRows, kVectors>& out) {
  __m256 dv[kVectors];
  for (int i = 0; i < kVectors; i++) dv[i] = LoadHalves(d + 16 * i);
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m256 s =
        _mm256_set1_ps(rows.scales[static_cast<size_t>(r) * rows.scale_stride + scale]);
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++)
      out[r][i] =
          _mm256_fmadd_ps(_mm256_cvtepi32_ps(total[r][i]), _mm256_mul_ps(dv[i], s), out[r][i]);
  }
}

template <PackedType kType, int kRows, int kVectors>
inline void GroupedBlock(const uint8_t* w, const std::byte* block, size_t groups, int vector,
                         const TileRows& rows, Floats<kRows, kVectors>& out) {
  __m256i ones[kVectors];
  for (int i = 0; i < kVectors; i++) ones[i] = _mm256_set1_epi16(1);
  for (size_t g = 0; g < groups; g++) {
    Ints<kRows, kVectors> total;
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const size_t at = static_cast<size_t>(r) * rows.group_stride + g;
      const bool centred = kType == PackedType::kQ4_0 || kType == PackedType::kQ5_0;
      const int start = centred ? -ZeroPoint(kType) * rows.group_sums[at] : 0;
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++) total[r][i] = _mm256_set1_epi32(start);
    }
    AddProducts<kType, kQuadsPerGroup, kRows, kVectors>(w, rows.values + g * kGroupDepth,
                                                        rows.value_stride, ones, total);
    AddScaled<kRows, kVectors>(block + 16 * vector, rows, g, total, out);
    if constexpr (HasGroupMin(kType)) {
      __m256 m[kVectors];
      for (int i = 0; i < kVectors; i++) m[i] = LoadHalves(block + kHalfRow + 16 * (vector + i));
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        const __m256 sum =
            _mm256_set1_ps(rows.scaled_sums[static_cast<size_t>(r) * rows.scale_stride + g]);
        TRELLIS_UNROLL
        for (int i = 0; i < kVectors; i++) {
          out[r][i] = _mm256_fmadd_ps(m[i], sum, out[r][i]);
        }
      }
    }
    block += GroupBytes(kType);
    w += kQuadsPerGroup * kByteQuadBytes;
  }
}

// out -= dmin x scales of the rows x (mins . sums of the groups). K-types have whole blocks only.
template <int kRows, int kVectors>
inline void SubtractMins(const std::byte* block, int vector, const TileRows& rows,
                         Floats<kRows, kVectors>& out) {
  Ints<kRows, kVectors> total;
  Clear<kRows, kVectors>(total);
  for (size_t g = 0; g < kGroupsPerBlock; g += 2) {
    __m256i mins[kVectors];
    for (int i = 0; i < kVectors; i++) {
      const std::byte* m =
          block + MinOffset(kGroupsPerBlock) + g * kPanelOutputs + 8 * (vector + i);
      mins[i] = PairHalves(_mm256_cvtepi8_epi32(Load8(m)),
                           _mm256_cvtepi8_epi32(Load8(m + kPanelOutputs)));
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m256i sums =
          Broadcast32(rows.group_sums + static_cast<size_t>(r) * rows.group_stride + g);
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++)
        total[r][i] = _mm256_add_epi32(total[r][i], _mm256_madd_epi16(mins[i], sums));
    }
  }
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    const __m256 s = _mm256_set1_ps(rows.scales[static_cast<size_t>(r) * rows.scale_stride]);
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++) {
      const __m256 dmin = LoadHalves(block + DminOffset() + 16 * (vector + i));
      out[r][i] =
          _mm256_fnmadd_ps(_mm256_cvtepi32_ps(total[r][i]), _mm256_mul_ps(dmin, s), out[r][i]);
    }
  }
}

template <PackedType kType, int kRows, int kVectors>
inline void AffineBlock(const uint8_t* w, const std::byte* block, int vector, const TileRows& rows,
                        Floats<kRows, kVectors>& out) {
  Ints<kRows, kVectors> total;
  Clear<kRows, kVectors>(total);
  for (size_t g = 0; g < kGroupsPerBlock; g++) {
    __m256i scales[kVectors];
    for (int i = 0; i < kVectors; i++) {
      const __m256i sc =
          _mm256_cvtepu8_epi32(Load8(block + ScOffset() + g * kPanelOutputs + 8 * (vector + i)));
      scales[i] = PairHalves(sc, sc);
    }
    AddProducts<kType, kQuadsPerGroup, kRows, kVectors>(w + g * kQuadsPerGroup * kByteQuadBytes,
                                                        rows.values + g * kGroupDepth,
                                                        rows.value_stride, scales, total);
  }
  AddScaled<kRows, kVectors>(block + 16 * vector, rows, 0, total, out);
  SubtractMins<kRows, kVectors>(block, vector, rows, out);
}

template <int kRows, int kVectors>
inline void SixBitBlock(const uint8_t* w, const std::byte* block, int vector, const TileRows& rows,
                        Floats<kRows, kVectors>& out) {
  // 32 x (scales . sums of 16 depths) is what the unsigned weights have too much.
  Ints<kRows, kVectors> total;
  Clear<kRows, kVectors>(total);
  const std::byte* sc = block + Q6ScOffset() + 8 * vector;
  for (size_t h = 0; h < 2 * kGroupsPerBlock; h += 2) {
    __m256i scales[kVectors];
    for (int i = 0; i < kVectors; i++) {
      const std::byte* at = sc + h * kPanelOutputs + 8 * i;
      scales[i] = PairHalves(_mm256_cvtepi8_epi32(Load8(at)),
                             _mm256_cvtepi8_epi32(Load8(at + kPanelOutputs)));
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m256i sums =
          Broadcast32(rows.half_sums + 2 * static_cast<size_t>(r) * rows.group_stride + h);
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++)
        total[r][i] = _mm256_sub_epi32(total[r][i], _mm256_madd_epi16(scales[i], sums));
    }
  }
  TRELLIS_UNROLL
  for (int r = 0; r < kRows; r++) {
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++) total[r][i] = _mm256_slli_epi32(total[r][i], 5);
  }
  for (size_t h = 0; h < 2 * kGroupsPerBlock; h++) {
    __m256i scales[kVectors];
    for (int i = 0; i < kVectors; i++) {
      const __m256i s = _mm256_cvtepi8_epi32(Load8(sc + h * kPanelOutputs + 8 * i));
      scales[i] = PairHalves(s, s);
    }
    AddProducts<PackedType::kQ6_K, kQuadsPerGroup / 2, kRows, kVectors>(
        w + h * (kQuadsPerGroup / 2) * kByteQuadBytes, rows.values + h * (kGroupDepth / 2),
        rows.value_stride, scales, total);
  }
  AddScaled<kRows, kVectors>(block + 16 * vector, rows, 0, total, out);
}

template <PackedType kType>
inline __m256 LoadWeights(const std::byte* p) {
  if constexpr (kType == PackedType::kF32)
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  if constexpr (kType == PackedType::kF16) return LoadHalves(p);
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

template <PackedType kType, int kRows, int kVectors>
inline void FloatBlock(const std::byte* block, size_t groups, int vector, const float* x,
                       size_t x_stride, Floats<kRows, kVectors>& out) {
  constexpr size_t kElement = kType == PackedType::kF32 ? 4 : 2;
  for (size_t k = 0; k < groups * kGroupDepth; k++) {
    __m256 w[kVectors];
    TRELLIS_UNROLL
    for (int i = 0; i < kVectors; i++) {
      const size_t output = 8 * static_cast<size_t>(vector + i);
      w[i] = LoadWeights<kType>(block + (k * kPanelOutputs + output) * kElement);
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      const __m256 v = _mm256_set1_ps(x[static_cast<size_t>(r) * x_stride + k]);
      TRELLIS_UNROLL
      for (int i = 0; i < kVectors; i++) out[r][i] = _mm256_fmadd_ps(v, w[i], out[r][i]);
    }
  }
}

struct Avx2Matmul {
  static constexpr int kTileRows = 4;

  template <PackedType kType>
  static void Unpack(const std::byte* block, size_t groups, uint8_t* bytes) {
    UnpackBlock<kType>(block, groups, bytes);
  }

  template <PackedType kType, int kRows>
  static void Tile(const TileInput& in, float* sums) {
    constexpr int kVectors = kRows == 1 ? kPanelVectors : 2;
    for (int vector = 0; vector < kPanelVectors; vector += kVectors) {
      Floats<kRows, kVectors> out;
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < kVectors; i++)
          out[r][i] = _mm256_loadu_ps(sums + r * kPanelOutputs + 8 * (vector + i));
      }
      const uint8_t* w = in.bytes + 32 * vector;
      if constexpr (FormFor(kType) == ActivationForm::kF32) {
        FloatBlock<kType, kRows, kVectors>(in.block, in.groups, vector, in.x, in.x_stride, out);
      } else if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
        GroupedBlock<kType, kRows, kVectors>(w, in.block, in.groups, vector, in.rows, out);
      } else if constexpr (kType == PackedType::kQ6_K) {
        SixBitBlock<kRows, kVectors>(w, in.block, vector, in.rows, out);
      } else {
        AffineBlock<kType, kRows, kVectors>(w, in.block, vector, in.rows, out);
      }
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (int i = 0; i < kVectors; i++)
          _mm256_storeu_ps(sums + r * kPanelOutputs + 8 * (vector + i), out[r][i]);
      }
    }
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
