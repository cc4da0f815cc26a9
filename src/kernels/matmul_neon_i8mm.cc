// NEON with the product of 2 x 8 by 8 x 2 signed bytes (i8mm): two rows by two outputs, eight
// depths.
#if defined(__aarch64__)

#include "kernels/kernels_internal.h"
#include "kernels/matmul_neon_tiles.h"

namespace trellis {
namespace {

struct MatrixProduct {
  static constexpr size_t kOutputBytes = 8;

  static void StoreQuads(int8_t* to, size_t v, int8x16_t even, int8x16_t odd) {
    const int32x4_t a = vreinterpretq_s32_s8(even), b = vreinterpretq_s32_s8(odd);
    vst1q_s8(to + 32 * v, vreinterpretq_s8_s32(vzip1q_s32(a, b)));
    vst1q_s8(to + 32 * v + 16, vreinterpretq_s8_s32(vzip2q_s32(a, b)));
  }

  template <size_t kDepth, int kRows>
  static void Multiply(const int8_t* w, const int8_t* values, size_t stride, Ints<kRows>& acc) {
    constexpr int kPairs = (kRows + 1) / 2;
    // Of a pair of rows and two outputs each: row 0's, then row 1's.
    int32x4_t sums[kPairs][2 * kTileVectors];
    TRELLIS_UNROLL
    for (int p = 0; p < kPairs; p++) {
      TRELLIS_UNROLL
      for (int i = 0; i < 2 * kTileVectors; i++) sums[p][i] = vdupq_n_s32(0);
    }
    for (size_t k = 0; k < kDepth; k += 16) {
      int8x16_t low[kPairs], high[kPairs];  // 8 depths of both rows
      TRELLIS_UNROLL
      for (int p = 0; p < kPairs; p++) {
        const int8_t* row = values + k + static_cast<size_t>(2 * p) * stride;
        const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(row));
        // An odd row is its own partner.
        const int64x2_t b = 2 * p + 1 < kRows ? vreinterpretq_s64_s8(vld1q_s8(row + stride)) : a;
        low[p] = vreinterpretq_s8_s64(vtrn1q_s64(a, b));
        high[p] = vreinterpretq_s8_s64(vtrn2q_s64(a, b));
      }
      AddOctet<kPairs>(w, low, sums);
      AddOctet<kPairs>(w + 2 * kByteQuadBytes, high, sums);
      w += 4 * kByteQuadBytes;
    }
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int i = 0; i < kTileVectors; i++) {
        const int64x2_t a = vreinterpretq_s64_s32(sums[r / 2][2 * i]),
                        b = vreinterpretq_s64_s32(sums[r / 2][2 * i + 1]);
        acc[r][i] = vreinterpretq_s32_s64(r % 2 == 0 ? vtrn1q_s64(a, b) : vtrn2q_s64(a, b));
      }
    }
  }

 private:
  // sums += eight depths.
  template <int kPairs>
  static void AddOctet(const int8_t* w, const int8x16_t (&a)[kPairs],
                       int32x4_t (&sums)[kPairs][2 * kTileVectors]) {
    TRELLIS_UNROLL
    for (int i = 0; i < 2 * kTileVectors; i++) {
      const int8x16_t v = vld1q_s8(w + 16 * i);
      TRELLIS_UNROLL
      for (int p = 0; p < kPairs; p++) sums[p][i] = vmmlaq_s32(sums[p][i], a[p], v);
    }
  }
};

}  // namespace

MatmulKernels NeonI8mmMatmulKernels() {
  return {.quantize_rows = NeonMatmulKernels().quantize_rows,
          .matmul = BlockedMatmul<InTiles<NeonMatmul<MatrixProduct>>>::Matmul};
}

}  // namespace trellis

#endif  // __aarch64__
