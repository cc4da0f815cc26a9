// One f32 in the guise of a vector: the portable reading of ops-inl.h. Members as in simd_avx512.h.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/half.h"

namespace trellis {

struct SimdScalar {
  static constexpr size_t kLanes = 1;
  using F = float;

  static F Load(const float* p) { return *p; }
  static void Store(float* p, F v) { *p = v; }
  static F LoadHalf(const uint16_t* p) { return HalfToFloat(*p); }
  static void StoreHalf(uint16_t* p, F v) { *p = FloatToHalf(v); }
  static F Set(float v) { return v; }
  static F Add(F a, F b) { return a + b; }
  static F Sub(F a, F b) { return a - b; }
  static F Mul(F a, F b) { return a * b; }
  static F Div(F a, F b) { return a / b; }
  static F MulAdd(F a, F b, F c) { return std::fma(a, b, c); }
  static F NegMulAdd(F a, F b, F c) { return std::fma(-a, b, c); }
  static F Max(F a, F b) { return a > b ? a : b; }
  static F Min(F a, F b) { return a < b ? a : b; }
  static F Round(F v) { return std::nearbyint(v); }
  static F MulPow2(F v, F n) { return n >= -126 ? std::ldexp(v, static_cast<int>(n)) : 0; }
  static F IfGreaterEqual(F a, F b, F v) { return a >= b ? v : 0.0f; }
  static float Sum(F v) { return v; }
  static float MaxOf(F v) { return v; }
};

}  // namespace trellis
