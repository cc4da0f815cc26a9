// exp and tanh for any vector type S of simd_*.h. A lane's result depends on that lane alone.
#pragma once

namespace trellis {

// e^x, relative error below 4e-7 (measured in ops_test.cc) in [-87, 88]; exactly 1 at 0; 0 below
// -87, clamped above 88. Cody-Waite reduction by ln 2 in two parts, then the Taylor polynomial of
// degree 7 on [-ln2/2, ln2/2].
template <typename S>
inline typename S::F Exp(typename S::F x) {
  using F = typename S::F;
  const F clamped = S::Min(S::Max(x, S::Set(-87.0f)), S::Set(88.0f));
  const F n = S::Round(S::Mul(clamped, S::Set(1.44269504089f)));
  F r = S::NegMulAdd(n, S::Set(0.693359375f), clamped);
  r = S::NegMulAdd(n, S::Set(-2.12194440e-4f), r);
  F p = S::Set(1.0f / 5040);
  p = S::MulAdd(p, r, S::Set(1.0f / 720));
  p = S::MulAdd(p, r, S::Set(1.0f / 120));
  p = S::MulAdd(p, r, S::Set(1.0f / 24));
  p = S::MulAdd(p, r, S::Set(1.0f / 6));
  p = S::MulAdd(p, r, S::Set(0.5f));
  p = S::MulAdd(p, r, S::Set(1.0f));
  p = S::MulAdd(p, r, S::Set(1.0f));
  return S::IfGreaterEqual(x, S::Set(-87.0f), S::MulPow2(p, n));
}

// 2^x for x <= 0 or a rounding error above it: relative error below 2e-7 (measured in ops_test.cc),
// exactly 1 at 0, exactly 0 below -126.5. 2^n times the minimax polynomial of degree 5 of 2^r on
// [-1/2, 1/2] with its constant term held at 1; n = -127 has the bits of 0.
template <typename S>
inline typename S::F Exp2OfNegative(typename S::F x) {
  using F = typename S::F;
  const F clamped = S::Max(x, S::Set(-127.0f));
  const F n = S::Round(clamped);
  const F r = S::Sub(clamped, n);
  F p = S::Set(0.00132647272f);
  p = S::MulAdd(p, r, S::Set(0.00967151281f));
  p = S::MulAdd(p, r, S::Set(0.0555073374f));
  p = S::MulAdd(p, r, S::Set(0.240222421f));
  p = S::MulAdd(p, r, S::Set(0.693146978f));
  p = S::MulAdd(p, r, S::Set(1.0f));
  return S::MulPow2(p, n);
}

// tanh(x) = 1 - 2 / (e^2x + 1); absolute error below 3e-7.
template <typename S>
inline typename S::F Tanh(typename S::F x) {
  const typename S::F e = Exp<S>(S::Add(x, x));
  return S::Sub(S::Set(1.0f), S::Div(S::Set(2.0f), S::Add(e, S::Set(1.0f))));
}

}  // namespace trellis
