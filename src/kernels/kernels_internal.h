// What each instruction set's translation units export to kernels.cc. Internal to kernels/.
#pragma once

#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/ops.h"

namespace trellis {

MatmulKernels ScalarMatmulKernels();
AttentionKernels ScalarAttentionKernels();
OpKernels ScalarOpKernels();

#if defined(__x86_64__)
MatmulKernels Avx2MatmulKernels();
AttentionKernels Avx2AttentionKernels();
OpKernels Avx2OpKernels();

MatmulKernels AvxVnniMatmulKernels();  // the rest is AVX2's

MatmulKernels Avx512MatmulKernels();
AttentionKernels Avx512AttentionKernels();
OpKernels Avx512OpKernels();

MatmulKernels AmxMatmulKernels();  // the rest is AVX-512's
#endif

#if defined(__aarch64__)
MatmulKernels NeonMatmulKernels();
AttentionKernels NeonAttentionKernels();
OpKernels NeonOpKernels();

MatmulKernels NeonI8mmMatmulKernels();  // the rest is NEON's
#endif

}  // namespace trellis
