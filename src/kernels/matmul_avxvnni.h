// The arithmetic of AVX-VNNI for the tiles of matmul_avx2_tiles.h, over its instruction: tests have
// it run where a machine lacks that. Internal to kernels/; for translation units compiled for AVX2.
//
// vpdpbusd adds the products of four unsigned weights and four signed activations to 32 bits, so
// nothing can overflow and a unit is one sum, times the integer scale for K-types.
#pragma once

#include <cstring>

#include "kernels/matmul_avx2_tiles.h"

namespace trellis {
namespace {

// Instruction::Dot(acc, w, a): in each lane, acc += dot of four unsigned bytes of w, signed of a.
template <typename Instruction>
struct DotProducts {
  // 12 sums, 2 weights and an activation in 16 registers; the sums are chains enough for two
  // instructions a cycle of latency five.
  static constexpr int kTileRows = 6;
  static constexpr bool kDots = true;

  template <PackedType kType, int kRows>
  using Rows = RowPointers<kRows>;

  template <PackedType kType, int kRows, typename Block>
  [[gnu::always_inline]] static void Multiply(const Block& block, size_t unit,
                                              const RowPointers<kRows>& a, Ints<kRows>& total) {
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) total[r][0] = total[r][1] = _mm256_setzero_si256();
    Unrolled<UnitQuads(kType)>([&](auto quad) __attribute__((always_inline)) {
      __m256i w[2];
      block.template Weights<quad>(unit, w);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) {
        int32_t activations;
        std::memcpy(&activations, a.at[r] + 4 * quad, sizeof(activations));
        const __m256i v = _mm256_set1_epi32(activations);
        Instruction::Dot(total[r][0], w[0], v);
        Instruction::Dot(total[r][1], w[1], v);
      }
    });
  }

  template <PackedType kType, int kRows, typename Block>
  [[gnu::always_inline]] static void AddScaled(const Block& block, size_t unit,
                                               const RowPointers<kRows>& a, Ints<kRows>& total) {
    Ints<kRows> products;
    Multiply<kType, kRows>(block, unit, a, products);
    TRELLIS_UNROLL
    for (int i = 0; i < 2; i++) {
      const __m256i scale = block.Scale(unit, i);
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++)
        total[r][i] = _mm256_add_epi32(total[r][i], _mm256_mullo_epi32(products[r][i], scale));
    }
  }
};

}  // namespace
}  // namespace trellis
