// A block of a panel as AVX2 tiles read it: straight from its packed bytes (PackedBlock), or
// unpacked once for many rows (UnpackedBlock). Both have the same members; half 0 of a panel is its
// outputs 0..15, half 1 the others, two vectors each. Internal to kernels/; for translation units
// compiled for AVX2, each of which has its own copy.
//
// A unit is what lies under one scale: a group of 32 depths, or a half of one for kQ6_K.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "kernels/packed_format.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

constexpr int kHalfOutputs = 16;

constexpr int UnitQuads(PackedType type) {
  return type == PackedType::kQ6_K ? 4 : 8;
}

inline __m256i Load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void Store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
inline __m256 LoadHalves(const std::byte* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline __m128i Load8(const std::byte* p) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
}
// Signed bytes 0, 2, 4... and 1, 3, 5... in 16 bits.
inline __m256i EvenBytes(__m256i x) {
  return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8);
}
inline __m256i OddBytes(__m256i x) {
  return _mm256_srai_epi16(x, 8);
}
// Lanes of 32 bits -> their low 16 bits, `low` below and `high` above.
inline __m256i PairHalves(__m256i low, __m256i high) {
  return _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
}

// 16 where the bit is set: one byte for each of the 32 bits.
inline __m256i BitsToSixteens(const std::byte* bits) {
  uint32_t word;
  std::memcpy(&word, bits, sizeof(word));
  const __m256i spread =
      _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)),
                          _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                           2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
  const __m256i mask = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201ULL));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, mask), mask);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

// kDots: the arithmetic has a dot product of four bytes in 32 bits.
template <PackedType kType, int kHalf, bool kDots>
class PackedBlock {
 public:
  explicit PackedBlock(const std::byte* block) : block_(block) {}

  // Quad kQuad of unit `unit`: two vectors of [output][4] unsigned weights. kQ8_0 without kDots:
  // the pair kQuad, 16 to a unit, of signed weights in 16 bits [output][2]: of each four depths
  // first 0 and 2, then 1 and 3.
  template <int kQuad>
  [[gnu::always_inline]] void Weights(size_t unit, __m256i (&w)[2]) const {
    using namespace packed;
    if constexpr (kType == PackedType::kQ8_0 && kDots) {
      const std::byte* q = Group(unit) + GroupQuantOffset(kType) + kQuad * kByteQuadBytes +
                           kHalf * kByteQuadBytes / 2;
      for (int i = 0; i < 2; i++) w[i] = Load(q + 32 * i);
    } else if constexpr (kType == PackedType::kQ8_0) {
      const std::byte* q = Group(unit) + GroupQuantOffset(kType) + kQuad / 2 * kByteQuadBytes +
                           kHalf * kByteQuadBytes / 2;
      for (int i = 0; i < 2; i++) {
        const __m256i x = _mm256_xor_si256(Load(q + 32 * i), _mm256_set1_epi8(-128));
        w[i] = kQuad % 2 == 0 ? EvenBytes(x) : OddBytes(x);
      }
    } else if constexpr (kType == PackedType::kQ6_K) {
      SixBits<kQuad>(unit, w);
    } else {
      const std::byte* q = Nibbles(unit) + kQuad * kNibbleQuadBytes;
      for (int i = 0; i < 2; i++) {
        w[i] = Nibble(Load(q + 32 * i));
        if constexpr (HasBit4(kType)) {
          const std::byte* bits = Bit4(unit) + kQuad * kBit4QuadBytes + kHalf * 8 + 4 * i;
          w[i] = _mm256_or_si256(w[i], BitsToSixteens(bits));
        }
      }
    }
  }

  // The f16 scale, and the min (K-types: dmin; unit is 0).
  __m256 D(size_t unit, int i) const { return LoadHalves(Group(unit) + At(2, i)); }
  __m256 M(size_t unit, int i) const {
    return LoadHalves(Group(unit) + packed::kHalfRow + At(2, i));
  }

  // K-types: the integer scale; without kDots twice in 16 bits, for vpmaddwd.
  __m256i Scale(size_t unit, int i) const {
    const __m256i x = kType == PackedType::kQ6_K ? _mm256_cvtepi8_epi32(Load8(Scales(unit, i)))
                                                 : _mm256_cvtepu8_epi32(Load8(Scales(unit, i)));
    return kDots ? x : PairHalves(x, x);
  }
  // What two units' sums of activations are multiplied by: their mins (kQ6_K: their scales).
  __m256i SumFactor(size_t pair, int i) const {
    const std::byte* x = kType == PackedType::kQ6_K
                             ? Scales(2 * pair, i)
                             : block_ + packed::MinOffset(packed::kGroupsPerBlock) +
                                   2 * pair * kPanelOutputs + At(1, i);
    return PairHalves(_mm256_cvtepi8_epi32(Load8(x)),
                      _mm256_cvtepi8_epi32(Load8(x + kPanelOutputs)));
  }

 private:
  static constexpr bool kGrouped = FormFor(kType) == ActivationForm::kPerGroup;
  static constexpr size_t kGroups = packed::kGroupsPerBlock;  // K-types have whole blocks only

  static size_t At(size_t bytes, int i) {
    return bytes * static_cast<size_t>(kHalf * kHalfOutputs + 8 * i);
  }
  static __m256i Nibble(__m256i x) {
    return _mm256_and_si256(kHalf == 0 ? x : _mm256_srli_epi16(x, 4), _mm256_set1_epi8(0x0f));
  }

  const std::byte* Group(size_t unit) const {
    return kGrouped ? block_ + unit * packed::GroupBytes(kType) : block_;
  }
  const std::byte* Nibbles(size_t unit) const {
    using namespace packed;
    if (kGrouped) return Group(unit) + GroupQuantOffset(kType);
    return block_ + NibbleOffset(kGroups) + unit * kQuadsPerGroup * kNibbleQuadBytes;
  }
  const std::byte* Bit4(size_t unit) const {
    using namespace packed;
    if (kGrouped) return Group(unit) + GroupBit4Offset(kType);
    return block_ + Bit4Offset(kGroups) + unit * kQuadsPerGroup * kBit4QuadBytes;
  }
  const std::byte* Scales(size_t unit, int i) const {
    const size_t offset = kType == PackedType::kQ6_K ? packed::Q6ScOffset() : packed::ScOffset();
    return block_ + offset + unit * kPanelOutputs + At(1, i);
  }

  template <int kQuad>
  void SixBits(size_t unit, __m256i (&w)[2]) const {
    using namespace packed;
    const size_t quad = 4 * unit + kQuad;
    const std::byte* low = block_ + Q6NibbleOffset(kGroups) + quad * kNibbleQuadBytes;
    const std::byte* high = block_ + Q6HighOffset(kGroups) + quad / 2 * kNibbleQuadBytes;
    for (int i = 0; i < 2; i++) {
      const __m256i h = Load(high + 32 * i);
      constexpr int kShift = 2 * (2 * (kQuad % 2) + kHalf) - 4;  // to bits 4 and 5
      const __m256i bits = kShift < 0 ? _mm256_slli_epi16(h, kShift < 0 ? -kShift : 0)
                                      : _mm256_srli_epi16(h, kShift < 0 ? 0 : kShift);
      w[i] = _mm256_or_si256(Nibble(Load(low + 32 * i)),
                             _mm256_and_si256(bits, _mm256_set1_epi8(0x30)));
    }
  }

  const std::byte* block_;
};

// What UnpackBlock() fills: PackedBlock's answers, one half after the other.
struct alignas(64) UnpackedHalf {
  __m256i weights[2 * kBlockDepth / 4][2];
  __m256 d[packed::kGroupsPerBlock][2], m[packed::kGroupsPerBlock][2];
  __m256i scales[2 * packed::kGroupsPerBlock][2], sum_factors[packed::kGroupsPerBlock][2];
};
static_assert(2 * sizeof(UnpackedHalf) <= kUnpackedBlockBytes);

template <PackedType kType, int kHalf, bool kDots>
class UnpackedBlock {
 public:
  explicit UnpackedBlock(const std::byte* unpacked)
      : half_(reinterpret_cast<const UnpackedHalf*>(unpacked)[kHalf]) {}

  template <int kQuad>
  [[gnu::always_inline]] void Weights(size_t unit, __m256i (&w)[2]) const {
    const __m256i(&from)[2] = half_.weights[unit * WeightsPerUnit() + kQuad];
    w[0] = from[0], w[1] = from[1];
  }
  __m256 D(size_t unit, int i) const { return half_.d[unit][i]; }
  __m256 M(size_t unit, int i) const { return half_.m[unit][i]; }
  __m256i Scale(size_t unit, int i) const { return half_.scales[unit][i]; }
  __m256i SumFactor(size_t pair, int i) const { return half_.sum_factors[pair][i]; }

  static constexpr int WeightsPerUnit() {
    return kType == PackedType::kQ8_0 && !kDots ? 16 : UnitQuads(kType);
  }

 private:
  const UnpackedHalf& half_;
};

template <PackedType kType, int kHalf, bool kDots>
void UnpackHalf(const std::byte* block, size_t groups, UnpackedHalf* to) {
  constexpr bool kGrouped = FormFor(kType) == ActivationForm::kPerGroup;
  constexpr int kWeights = UnpackedBlock<kType, kHalf, kDots>::WeightsPerUnit();
  const PackedBlock<kType, kHalf, kDots> from(block);
  const size_t units = kType == PackedType::kQ6_K ? 2 * groups : groups;
  for (size_t unit = 0; unit < units; unit++) {
    Unrolled<kWeights>([&](auto quad) __attribute__((always_inline)) {
      from.template Weights<quad>(unit, to->weights[unit * kWeights + quad]);
    });
  }
  for (int i = 0; i < 2; i++) {
    for (size_t unit = 0; unit < (kGrouped ? units : 1); unit++) {
      to->d[unit][i] = from.D(unit, i);
      if (packed::HasMin(kType)) to->m[unit][i] = from.M(unit, i);
    }
    if constexpr (!kGrouped) {
      for (size_t unit = 0; unit < units; unit++) to->scales[unit][i] = from.Scale(unit, i);
      for (size_t pair = 0; pair < units / 2; pair++)
        to->sum_factors[pair][i] = from.SumFactor(pair, i);
    }
  }
}

// `groups` groups of `block` to `unpacked`, kUnpackedBlockBytes long.
template <PackedType kType, bool kDots>
void UnpackBlock(const std::byte* block, size_t groups, std::byte* unpacked) {
  auto* halves = reinterpret_cast<UnpackedHalf*>(unpacked);
  UnpackHalf<kType, 0, kDots>(block, groups, &halves[0]);
  UnpackHalf<kType, 1, kDots>(block, groups, &halves[1]);
}

}  // namespace
}  // namespace trellis
