#if defined(__x86_64__)
#include "kernels/attention-inl.h"
#include "kernels/kernels_internal.h"
#include "kernels/simd_avx2.h"

namespace trellis {

AttentionKernels Avx2AttentionKernels() {
  return AttentionTable<SimdAvx2>::Table(KvType::kI16);
}

}  // namespace trellis
#endif
