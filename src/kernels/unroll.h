// TRELLIS_UNROLL before a loop of constant length: unroll it whole, so that arrays indexed by it
// live in registers.
#pragma once

#include <type_traits>
#include <utility>

#if defined(__clang__)
#define TRELLIS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TRELLIS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace trellis {

// f(0), f(1)... f(kCount - 1), as constants.
template <int kCount, typename F>
[[gnu::always_inline]] inline void Unrolled(const F& f) {
  [&]<int... k>(std::integer_sequence<int, k...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, k>{}), ...);
  }
  (std::make_integer_sequence<int, kCount>{});
}

}  // namespace trellis
