// AVX-VNNI: the dot product of bytes in vectors of 256 bits, without AVX-512.
#if defined(__x86_64__)

#include "kernels/matmul_avxvnni.h"

#include "kernels/kernels_internal.h"

namespace trellis {
namespace {

struct Vpdpbusd {
  // Assembly, for the reason that matmul_avx512.cc gives; it needs no compiler flag either.
  static void Dot(__m256i& acc, __m256i w, __m256i a) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(w), "x"(a));
  }
};

}  // namespace

MatmulKernels AvxVnniMatmulKernels() {
  return {.quantize_rows = Avx2MatmulKernels().quantize_rows,
          .matmul = BlockedMatmul<InTiles<Avx2Matmul<DotProducts<Vpdpbusd>>>>::Matmul};
}

}  // namespace trellis

#endif  // __x86_64__
