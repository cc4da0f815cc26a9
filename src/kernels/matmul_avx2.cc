#if defined(__x86_64__)
#include "kernels/kernels_internal.h"
namespace trellis {
MatmulKernels Avx2MatmulKernels() {
  return ScalarMatmulKernels();
}
}  // namespace trellis
#endif
