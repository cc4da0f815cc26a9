#include "kernels/kernels_internal.h"
#include "kernels/ops-inl.h"
#include "kernels/simd_scalar.h"

namespace trellis {

OpKernels ScalarOpKernels() {
  return OpsOf<SimdScalar>::Table();
}

}  // namespace trellis
