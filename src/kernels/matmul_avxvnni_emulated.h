// For tests: the matmul of AVX-VNNI with its instruction made of AVX2's.
#pragma once

#include "kernels/matmul.h"

namespace trellis {

// The machine must have AVX2.
MatmulKernels EmulatedAvxVnniMatmulKernels();

}  // namespace trellis
