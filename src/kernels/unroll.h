// TRELLIS_UNROLL before a loop of constant length: unroll it whole, so that arrays indexed by it
// live in registers.
#pragma once

#if defined(__clang__)
#define TRELLIS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TRELLIS_UNROLL _Pragma("GCC unroll 16")
#endif
