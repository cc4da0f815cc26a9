// NEON with the dot product of signed bytes (ARMv8.2 dotprod).
#if defined(__aarch64__)

#include "kernels/kernels_internal.h"
#include "kernels/matmul_neon_tiles.h"

namespace trellis {
namespace {

struct Dot {
  static constexpr size_t kOutputBytes = 4;

  static void StoreQuads(int8_t* to, size_t v, int8x16_t even, int8x16_t odd) {
    vst1q_s8(to + 16 * v, even);
    vst1q_s8(to + kByteQuadBytes + 16 * v, odd);
  }

  template <size_t kDepth, int kRows>
  static void Multiply(const int8_t* w, const int8_t* values, size_t stride, Ints<kRows>& acc) {
    Clear<kRows>(acc);
    for (size_t k = 0; k < kDepth; k += 16) {
      int8x16_t a[kRows];
      TRELLIS_UNROLL
      for (int r = 0; r < kRows; r++) a[r] = vld1q_s8(values + k + static_cast<size_t>(r) * stride);
      AddQuad<kRows, 0>(w, a, acc);
      AddQuad<kRows, 1>(w + kByteQuadBytes, a, acc);
      AddQuad<kRows, 2>(w + 2 * kByteQuadBytes, a, acc);
      AddQuad<kRows, 3>(w + 3 * kByteQuadBytes, a, acc);
      w += 4 * kByteQuadBytes;
    }
  }

 private:
  // acc += one quad; kLane is where it stands in the activations.
  template <int kRows, int kLane>
  static void AddQuad(const int8_t* w, const int8x16_t (&a)[kRows], Ints<kRows>& acc) {
    int8x16_t v[kTileVectors];
    TRELLIS_UNROLL
    for (int i = 0; i < kTileVectors; i++) v[i] = vld1q_s8(w + 16 * i);
    TRELLIS_UNROLL
    for (int r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (int i = 0; i < kTileVectors; i++)
        acc[r][i] = vdotq_laneq_s32(acc[r][i], v[i], a[r], kLane);
    }
  }
};

// --- Activations ---

struct Quantizer {
  static float AbsMax(const float* x, size_t n) {
    float32x4_t max = vdupq_n_f32(0);
    for (size_t k = 0; k < n; k += 4) max = vmaxq_f32(max, vabsq_f32(vld1q_f32(x + k)));
    return vmaxvq_f32(max);
  }

  static void QuantizeGroup(const float* x, float inverse, int8_t* values, int16_t* sums) {
    for (int h = 0; h < 2; h++) {
      int16x4_t q[4];
      for (int i = 0; i < 4; i++) {
        const float32x4_t scaled = vmulq_n_f32(vld1q_f32(x + 16 * h + 4 * i), inverse);
        q[i] = vqmovn_s32(vcvtnq_s32_f32(scaled));
      }
      const int8x16_t bytes =
          vcombine_s8(vqmovn_s16(vcombine_s16(q[0], q[1])), vqmovn_s16(vcombine_s16(q[2], q[3])));
      const int8x16_t clamped = vmaxq_s8(bytes, vdupq_n_s8(-127));
      vst1q_s8(values + 16 * h, clamped);
      sums[h] = vaddlvq_s8(clamped);
    }
  }
};

}  // namespace

MatmulKernels NeonMatmulKernels() {
  return {.quantize_rows = QuantizeRowsWith<Quantizer>,
          .matmul = BlockedMatmul<InTiles<NeonMatmul<Dot>>>::Matmul};
}

}  // namespace trellis

#endif  // __aarch64__
