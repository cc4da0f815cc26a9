#if defined(__aarch64__)
#include "kernels/kernels_internal.h"
#include "kernels/ops-inl.h"
#include "kernels/simd_neon.h"

namespace trellis {

OpKernels NeonOpKernels() {
  return OpsOf<SimdNeon>::Table();
}

}  // namespace trellis
#endif
