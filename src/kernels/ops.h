// Element-wise and row-wise operations. All f32, rows independent, rows contiguous with the stride
// given (in elements).
#pragma once

#include <cstddef>
#include <cstdint>

namespace trellis {

// Rotary position embedding of one head, frequencies prepared by the model (rope scaling, YaRN and
// factors are in the tables, so the kernel knows none of them).
enum class RopePairing {
  kAdjacent,  // (x[2i], x[2i+1])           ggml "norm": llama
  kHalves,    // (x[i], x[i + n/2])         ggml "neox": qwen2, qwen3, gemma3
};

struct OpKernels {
  // out[r] = x[r] / sqrt(mean(x[r]^2) + epsilon) * weight   (RMSNorm). `weight` [n] may be null
  // (ones). In place allowed.
  void (*rms_norm)(const float* x, size_t x_stride, const float* weight, float epsilon, size_t n,
                   size_t num_rows, float* out, size_t out_stride);
  // Rotates heads of x [num_rows, x_stride] in place: row r, head h at h * head_dim, first
  // `rope_dim` elements. cos, sin: [num_rows, rope_dim / 2], already multiplied by any magnitude
  // factor.
  void (*rope)(float* x, size_t x_stride, size_t num_rows, size_t num_heads, size_t head_dim,
               size_t rope_dim, RopePairing pairing, const float* cos, const float* sin);
  // out[i] = silu(gate[i]) * up[i], rows of n. In place on gate allowed.
  void (*silu_mul)(const float* gate, const float* up, size_t stride, size_t n, size_t num_rows,
                   float* out, size_t out_stride);
  // out[i] = gelu_tanh(gate[i]) * up[i] (the tanh approximation, as ggml's GELU).
  void (*gelu_mul)(const float* gate, const float* up, size_t stride, size_t n, size_t num_rows,
                   float* out, size_t out_stride);
  // x[i] += y[i], n elements.
  void (*add)(float* x, const float* y, size_t n);
  // x[i] *= factor.
  void (*scale)(float* x, float factor, size_t n);
};

}  // namespace trellis
