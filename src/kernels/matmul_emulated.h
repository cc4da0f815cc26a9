// For tests: matmuls with instructions that a machine may lack made of those it has.
#pragma once

#include "kernels/matmul.h"

namespace trellis {

// AVX-VNNI's; the machine must have AVX2.
MatmulKernels EmulatedAvxVnniMatmulKernels();
// AMX's; the machine must have AVX-512 with VNNI.
MatmulKernels EmulatedAmxMatmulKernels();

}  // namespace trellis
