// AMX with int8, beside AVX-512.
#if defined(__x86_64__)

#include "kernels/matmul_amx.h"

namespace trellis {

MatmulKernels AmxMatmulKernels() {
  MatmulKernels kernels = Avx512MatmulKernels();
  kernels.block_rows = kScratchRows;
  kernels.matmul = MatmulWithTiles<AmxTiles>;
  return kernels;
}

}  // namespace trellis

#endif  // __x86_64__
