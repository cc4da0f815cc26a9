// The kernel table: one set of function pointers per instruction set, chosen once at run time.
//
// A kernel sees rows, panels and pages, never a request or a model. Kernels do not allocate, do not
// spawn threads and are pure functions of their arguments: the caller (model/) splits work over the
// compute pool by giving different threads different output ranges. Contracts are in matmul.h,
// attention.h and ops.h.
//
// INVARIANT (batch invariance): a row's result depends on that row's inputs alone, bit for bit: not
// on how many rows, panels or pages share the call, nor on how the caller split it. Bits may differ
// between ISAs.
#pragma once

#include <string_view>
#include <vector>

#include "base/status.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "kernels/ops.h"

namespace trellis {

enum class Isa { kScalar, kAvx2, kAvxVnni, kAvx512, kAmx, kNeon, kNeonI8mm };

struct KernelTable {
  Isa isa;
  const char*
      name;  // what TRELLIS_ISA calls it: scalar, avx2, avxvnni, avx512, amx, neon, neon_i8mm
  MatmulKernels matmul;
  AttentionKernels attention;
  OpKernels ops;
};

// Every table that this build has and this machine can run, best last; the scalar one is always
// there.
std::vector<const KernelTable*> AvailableKernels();

// The table called `name`, or the best one when `name` is empty.
// ERRORS: kInvalidArgument when there is no such table or this machine cannot run it (lists those
// it can).
Result<const KernelTable*> SelectKernels(std::string_view name);

// SelectKernels($TRELLIS_ISA).
Result<const KernelTable*> SelectKernelsFromEnvironment();

}  // namespace trellis
