// What runs here, and is tested with the other tables, is all of the AVX-VNNI matmul but one
// instruction.
#include "kernels/matmul_emulated.h"

#if defined(__x86_64__)

#include "kernels/kernels_internal.h"
#include "kernels/matmul_avxvnni.h"

namespace trellis {
namespace {

struct EmulatedVpdpbusd {
  // In 16 bits, since vpmaddubsw saturates.
  static void Dot(__m256i& acc, __m256i w, __m256i a) {
    const __m256i w_even = _mm256_and_si256(w, _mm256_set1_epi16(0xff)),
                  w_odd = _mm256_srli_epi16(w, 8);
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w_even, EvenBytes(a)));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w_odd, OddBytes(a)));
  }
};

}  // namespace

MatmulKernels EmulatedAvxVnniMatmulKernels() {
  return {.quantize_rows = Avx2MatmulKernels().quantize_rows,
          .matmul = BlockedMatmul<InTiles<Avx2Matmul<DotProducts<EmulatedVpdpbusd>>>>::Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
