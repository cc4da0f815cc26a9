#if defined(__x86_64__)
#include "kernels/attention-inl.h"
#include "kernels/kernels_internal.h"
#include "kernels/simd_avx512.h"

namespace trellis {

AttentionKernels Avx512AttentionKernels() {
  return AttentionTable<SimdAvx512>::Table(KvType::kI16);
}

}  // namespace trellis
#endif
