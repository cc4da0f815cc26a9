#if defined(__aarch64__)
#include "kernels/attention-inl.h"
#include "kernels/kernels_internal.h"
#include "kernels/simd_neon.h"

namespace trellis {

AttentionKernels NeonAttentionKernels() {
  return AttentionTable<SimdNeon>::Table(KvType::kF16);
}

}  // namespace trellis
#endif
