#if defined(__x86_64__)
#include "kernels/kernels_internal.h"
#include "kernels/ops-inl.h"
#include "kernels/simd_avx512.h"

namespace trellis {

OpKernels Avx512OpKernels() {
  return OpsOf<SimdAvx512>::Table();
}

}  // namespace trellis
#endif
