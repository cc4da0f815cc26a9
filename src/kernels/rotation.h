// Rotated rows: what pages of 8 bits hold, so that a few large components, such as the biases of
// Qwen's keys, do not take the digits of all others.
//
// A row is multiplied by a Walsh-Hadamard matrix, block after block of RotationBlock() elements:
//
//   y[i] = sum over j of (-1)^popcount(i & j) x[j]
//
// Rows of it are orthogonal and have the norm sqrt(block): what it makes of a query and a key has
// their product times the block, and twice applied it is a multiplication by the block.
#pragma once

#include <array>
#include <bit>
#include <cstddef>

namespace trellis {

// The largest power of two that divides head_dim.
constexpr size_t RotationBlock(size_t head_dim) {
  return head_dim & (~head_dim + 1);
}

constexpr float RotationSign(size_t i, size_t j) {
  return std::popcount(i & j) % 2 == 0 ? 1.0f : -1.0f;
}

// Rotates x [head_dim], for a vector type S of simd_*.h: between vectors by sums and differences,
// within one by a matrix of kLanes.
template <typename S>
struct Rotation {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;

  static void Apply(float* x, size_t head_dim) {
    const size_t block = RotationBlock(head_dim);
    size_t half = block / 2;
    for (; half >= kLanes; half /= 2) {
      ForPairs<kLanes>(x, head_dim, half, [](float* a, float* b) {
        const F va = S::Load(a), vb = S::Load(b);
        S::Store(a, S::Add(va, vb));
        S::Store(b, S::Sub(va, vb));
      });
    }
    if (block >= kLanes) {
      for (size_t i = 0; i < head_dim; i += kLanes) S::Store(x + i, WithinVector(x + i));
    } else {  // head_dim 8 or 24 on 16 lanes
      for (; half > 0; half /= 2) {
        ForPairs<1>(x, head_dim, half, [](float* a, float* b) {
          const float sum = *a + *b;
          *b = *a - *b, *a = sum;
        });
      }
    }
  }

 private:
  // Calls use(a, b) for each kStep elements at a and those `half` behind them.
  template <size_t kStep, typename Use>
  static void ForPairs(float* x, size_t n, size_t half, const Use& use) {
    for (size_t i = 0; i < n; i += 2 * half) {
      for (size_t j = i; j < i + half; j += kStep) use(x + j, x + j + half);
    }
  }

  static constexpr auto kSigns = [] {
    std::array<std::array<float, kLanes>, kLanes> signs{};
    for (size_t i = 0; i < kLanes; i++) {
      for (size_t j = 0; j < kLanes; j++) signs[i][j] = RotationSign(i, j);
    }
    return signs;
  }();

  static F WithinVector(const float* x) {
    F sum = S::Set(x[0]);
    for (size_t j = 1; j < kLanes; j++)
      sum = S::MulAdd(S::Set(x[j]), S::Load(kSigns[j].data()), sum);
    return sum;
  }
};

}  // namespace trellis
