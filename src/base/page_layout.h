// PageLayout: where each key and value lies inside one page of KV.
//
// A page holds kPageTokens consecutive tokens, for all layers, keys and values: one contiguous
// object, so that memory, disk and network move the same bytes. The attention kernels
// (kernels/attention.h) choose the layout and read it, the pool (kv/page_pool.h) allocates it and
// copies rows of it; it is stated once, here.
//
//   page = layer 0 | layer 1 | ... ;  layer = kv head 0 | kv head 1 | ... ;  head = K | V
//   K: [head_dim, kPageTokens], transposed: one vector load is one dimension of 16 keys
//   V: [kPageTokens, head_dim]
//
// All offsets and strides are in elements (2 bytes each) unless named bytes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace trellis {

// What an element is.
enum class KvType { kF16, kBf16 };

struct PageLayout {
  size_t num_layers = 0;
  size_t num_kv_heads = 0;
  size_t head_dim = 0;
  KvType type = KvType::kF16;

  constexpr size_t matrix_elements() const { return head_dim * kPageTokens; }
  constexpr size_t head_elements() const { return 2 * matrix_elements(); }
  constexpr size_t layer_elements() const { return num_kv_heads * head_elements(); }
  constexpr size_t page_bytes() const { return num_layers * layer_elements() * sizeof(uint16_t); }

  constexpr size_t k_offset(size_t layer, size_t kv_head) const {
    return layer * layer_elements() + kv_head * head_elements();
  }
  constexpr size_t v_offset(size_t layer, size_t kv_head) const {
    return k_offset(layer, kv_head) + matrix_elements();
  }

  // Copies token rows [0, num_rows) of every layer, K and V, from page `from` to page `to`.
  // REQUIRES: num_rows <= kPageTokens; both are pages of this layout and do not overlap.
  void CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const;

  friend bool operator==(const PageLayout&, const PageLayout&) = default;
};

}  // namespace trellis
