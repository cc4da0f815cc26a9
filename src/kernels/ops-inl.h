// The operations of ops.h for a vector type S of simd_*.h. Included once by each ops_<isa>.cc.
#pragma once

#include <cmath>
#include <cstddef>

#include "kernels/ops.h"
#include "kernels/simd_math.h"

namespace trellis {

template <typename S>
struct OpsOf {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;

  // out[i] = f(a[i], b[i]); the tail goes through the same vector arithmetic, padded.
  template <typename Function>
  static void Map(const float* a, const float* b, size_t n, float* out, const Function& f) {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) S::Store(out + i, f(S::Load(a + i), S::Load(b + i)));
    if (i == n) return;
    float pad_a[kLanes] = {}, pad_b[kLanes] = {};
    for (size_t j = i; j < n; j++) pad_a[j - i] = a[j], pad_b[j - i] = b[j];
    S::Store(pad_a, f(S::Load(pad_a), S::Load(pad_b)));
    for (size_t j = i; j < n; j++) out[j] = pad_a[j - i];
  }

  static float SumOfSquares(const float* x, size_t n) {
    F sums[4] = {S::Set(0), S::Set(0), S::Set(0), S::Set(0)};
    size_t i = 0;
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
      for (size_t j = 0; j < 4; j++) {
        const F v = S::Load(x + i + j * kLanes);
        sums[j] = S::MulAdd(v, v, sums[j]);
      }
    }
    for (; i + kLanes <= n; i += kLanes) {
      const F v = S::Load(x + i);
      sums[0] = S::MulAdd(v, v, sums[0]);
    }
    float sum = S::Sum(S::Add(S::Add(sums[0], sums[1]), S::Add(sums[2], sums[3])));
    for (; i < n; i++) sum = std::fma(x[i], x[i], sum);
    return sum;
  }

  static void RmsNorm(const float* x, size_t x_stride, const float* weight, float epsilon, size_t n,
                      size_t num_rows, float* out, size_t out_stride) {
    for (size_t r = 0; r < num_rows; r++) {
      const float* row = x + r * x_stride;
      const float mean = SumOfSquares(row, n) / static_cast<float>(n);
      const F factor = S::Set(1.0f / std::sqrt(mean + epsilon));
      if (weight != nullptr) {
        Map(row, weight, n, out + r * out_stride,
            [&](F v, F w) { return S::Mul(S::Mul(v, factor), w); });
      } else {
        Map(row, row, n, out + r * out_stride, [&](F v, F) { return S::Mul(v, factor); });
      }
    }
  }

  static void RotateHalves(float* x, size_t half, const float* cos, const float* sin) {
    const auto rotate = [](float* a, float* b, const float* c, const float* s) {
      const F u = S::Load(a), v = S::Load(b), cv = S::Load(c), sv = S::Load(s);
      S::Store(a, S::NegMulAdd(v, sv, S::Mul(u, cv)));
      S::Store(b, S::MulAdd(u, sv, S::Mul(v, cv)));
    };
    size_t i = 0;
    for (; i + kLanes <= half; i += kLanes) rotate(x + i, x + half + i, cos + i, sin + i);
    for (; i < half; i++) {
      const float u = x[i], v = x[half + i];
      x[i] = std::fma(-v, sin[i], u * cos[i]);
      x[half + i] = std::fma(u, sin[i], v * cos[i]);
    }
  }

  static void RotateAdjacent(float* x, size_t half, const float* cos, const float* sin) {
    for (size_t i = 0; i < half; i++) {
      const float u = x[2 * i], v = x[2 * i + 1];
      x[2 * i] = std::fma(-v, sin[i], u * cos[i]);
      x[2 * i + 1] = std::fma(u, sin[i], v * cos[i]);
    }
  }

  static void Rope(float* x, size_t x_stride, size_t num_rows, size_t num_heads, size_t head_dim,
                   size_t rope_dim, RopePairing pairing, const float* cos, const float* sin) {
    const size_t half = rope_dim / 2;
    for (size_t r = 0; r < num_rows; r++) {
      for (size_t h = 0; h < num_heads; h++) {
        float* head = x + r * x_stride + h * head_dim;
        if (pairing == RopePairing::kHalves) {
          RotateHalves(head, half, cos + r * half, sin + r * half);
        } else {
          RotateAdjacent(head, half, cos + r * half, sin + r * half);
        }
      }
    }
  }

  static void SiluMul(const float* gate, const float* up, size_t stride, size_t n, size_t num_rows,
                      float* out, size_t out_stride) {
    for (size_t r = 0; r < num_rows; r++) {
      Map(gate + r * stride, up + r * stride, n, out + r * out_stride, [](F g, F u) {
        const F e = Exp<S>(S::Sub(S::Set(0.0f), g));
        return S::Mul(S::Div(g, S::Add(S::Set(1.0f), e)), u);
      });
    }
  }

  // gelu(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))
  static void GeluMul(const float* gate, const float* up, size_t stride, size_t n, size_t num_rows,
                      float* out, size_t out_stride) {
    for (size_t r = 0; r < num_rows; r++) {
      Map(gate + r * stride, up + r * stride, n, out + r * out_stride, [](F g, F u) {
        const F cube = S::MulAdd(S::Mul(S::Set(0.044715f), S::Mul(g, g)), g, g);
        const F t = Tanh<S>(S::Mul(S::Set(0.79788456080286535588f), cube));
        return S::Mul(S::Mul(S::Mul(S::Set(0.5f), g), S::Add(S::Set(1.0f), t)), u);
      });
    }
  }

  static void AddTo(float* x, const float* y, size_t n) {
    Map(x, y, n, x, [](F a, F b) { return S::Add(a, b); });
  }

  static void Scale(float* x, float factor, size_t n) {
    const F f = S::Set(factor);
    Map(x, x, n, x, [f](F a, F) { return S::Mul(a, f); });
  }

  static OpKernels Table() {
    return {.rms_norm = RmsNorm,
            .rope = Rope,
            .silu_mul = SiluMul,
            .gelu_mul = GeluMul,
            .add = AddTo,
            .scale = Scale};
  }
};

}  // namespace trellis
