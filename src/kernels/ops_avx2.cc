#if defined(__x86_64__)
#include "kernels/kernels_internal.h"
#include "kernels/ops-inl.h"
#include "kernels/simd_avx2.h"

namespace trellis {

OpKernels Avx2OpKernels() {
  return OpsOf<SimdAvx2>::Table();
}

}  // namespace trellis
#endif
