// PageLayout: where each key and value lies inside one page of KV.
//
// A page holds kPageTokens consecutive tokens, for all layers, keys and values: one contiguous
// object, so that memory, disk and network move the same bytes. The attention kernels
// (kernels/attention.h) choose the layout and read it, the pool (kv/page_pool.h) allocates it and
// copies rows of it; it is stated once, here.
//
//   page = layer 0 | layer 1 | ... ;  layer = kv head 0 | kv head 1 | ... ;  head = K | V | scales
//   f16, bf16:
//     K: [head_dim, kPageTokens], transposed: one vector load is one dimension of 16 keys
//     V: [kPageTokens, head_dim]
//     no scales
//   i16: integers that the scale of their row multiplies. What is summed lies in pairs, as x86
//   multiplies them:
//     K: [head_dim / 2, kPageTokens, 2]
//     V: [kPageTokens / 2, head_dim, 2]
//     scales: f32 [2, kPageTokens], of keys, then of values
//
// All offsets and strides are in elements (2 bytes each) unless named bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace trellis {

// What an element is.
enum class KvType { kF16, kBf16, kI16 };

// Rows of kI16: the largest integer of a key and their Euclidean norm, so that sums of products
// with a query's cannot overflow; the largest of a value; the smallest scale.
struct I16Rows {
  static constexpr float kKeyMost = 32767, kKeyNorm = 65000, kValueMost = 16383;
  static constexpr float kLeastScale = 1e-15f;
};

struct PageLayout {
  size_t num_layers = 0;
  size_t num_kv_heads = 0;
  size_t head_dim = 0;  // even for i16
  KvType type = KvType::kF16;

  constexpr size_t matrix_elements() const { return head_dim * kPageTokens; }
  constexpr size_t scale_elements() const {
    return type == KvType::kI16 ? 2 * kPageTokens * sizeof(float) / sizeof(uint16_t) : 0;
  }
  constexpr size_t head_elements() const { return 2 * matrix_elements() + scale_elements(); }
  constexpr size_t layer_elements() const { return num_kv_heads * head_elements(); }
  constexpr size_t page_bytes() const { return num_layers * layer_elements() * sizeof(uint16_t); }

  constexpr size_t k_offset(size_t layer, size_t kv_head) const {
    return layer * layer_elements() + kv_head * head_elements();
  }
  constexpr size_t v_offset(size_t layer, size_t kv_head) const {
    return k_offset(layer, kv_head) + matrix_elements();
  }
  constexpr size_t scale_offset(size_t layer, size_t kv_head) const {
    return v_offset(layer, kv_head) + matrix_elements();
  }

  // Where dimension d of token row `token` is in K, and in V.
  constexpr size_t k_index(size_t token, size_t d) const {
    return type == KvType::kI16 ? d / 2 * 2 * kPageTokens + 2 * token + d % 2
                                : d * kPageTokens + token;
  }
  constexpr size_t v_index(size_t token, size_t d) const {
    return type == KvType::kI16 ? token / 2 * 2 * head_dim + 2 * d + token % 2
                                : token * head_dim + d;
  }

  // Copies token rows [0, num_rows) of every layer, K and V, from page `from` to page `to`.
  // REQUIRES: num_rows <= kPageTokens; both are pages of this layout and do not overlap.
  void CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const;

  friend bool operator==(const PageLayout&, const PageLayout&) = default;
};

}  // namespace trellis
