// PageLayout: where each key and value lies inside one page of KV.
//
// A page holds kPageTokens consecutive tokens, for all layers, keys and values: one contiguous
// object, so that memory, disk and network move the same bytes. The attention kernels
// (kernels/attention.h) choose the layout and read it, the pool (kv/page_pool.h) allocates it and
// copies rows of it; it is stated once, here.
//
//   page = layer 0 | layer 1 | ... ;  layer = kv head 0 | kv head 1 | ... ;  head = K | V | scales
//   K: [head_dim / n, kPageTokens, n], transposed: one vector load is n dimensions of some keys
//   V: [kPageTokens / n, head_dim, n]
//   n = interleave(): as many elements as instructions multiply and add at once lie together
//
//   type       element                                              n   scales
//   f16, bf16  16 bits                                              1   none
//   i16        int16, times the scale of its row                    2   f32 [2, kPageTokens]: of
//   q8_0       uint8 - 128, times the scale of its row, which       4     keys, then of values
//              holds a key or value rotated (kernels/rotation.h)
//
// Offsets are in bytes, indices in elements.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/types.h"

namespace trellis {

// What an element is.
enum class KvType { kF16, kBf16, kI16, kQ8_0 };
inline constexpr std::array kKvTypes = {KvType::kF16, KvType::kBf16, KvType::kI16, KvType::kQ8_0};
constexpr const char* KvTypeName(KvType type) {
  return std::array{"f16", "bf16", "i16", "q8_0"}[static_cast<size_t>(type)];
}

// Rows of integers: the smallest scale.
inline constexpr float kLeastKvScale = 1e-15f;
// Rows of kI16: the largest integer of a key and their Euclidean norm, so that sums of products
// with a query's cannot overflow; the largest of a value.
struct I16Rows {
  static constexpr float kKeyMost = 32767, kKeyNorm = 65000, kValueMost = 16383;
};
// Rows of kQ8_0: the largest integer, and what is added to it.
struct Q8Rows {
  static constexpr float kMost = 127;
  static constexpr int kZero = 128;
};

struct PageLayout {
  size_t num_layers = 0;
  size_t num_kv_heads = 0;
  size_t head_dim = 0;  // a multiple of interleave()
  KvType type = KvType::kF16;

  constexpr size_t element_bytes() const { return type == KvType::kQ8_0 ? 1 : 2; }
  constexpr size_t interleave() const {
    return type == KvType::kQ8_0 ? 4 : type == KvType::kI16 ? 2 : 1;
  }
  constexpr bool has_scales() const { return type == KvType::kI16 || type == KvType::kQ8_0; }

  constexpr size_t matrix_bytes() const { return head_dim * kPageTokens * element_bytes(); }
  constexpr size_t scale_bytes() const {
    return has_scales() ? 2 * kPageTokens * sizeof(float) : 0;
  }
  constexpr size_t head_bytes() const { return 2 * matrix_bytes() + scale_bytes(); }
  constexpr size_t layer_bytes() const { return num_kv_heads * head_bytes(); }
  constexpr size_t page_bytes() const { return num_layers * layer_bytes(); }

  constexpr size_t k_offset(size_t layer, size_t kv_head) const {
    return layer * layer_bytes() + kv_head * head_bytes();
  }
  constexpr size_t v_offset(size_t layer, size_t kv_head) const {
    return k_offset(layer, kv_head) + matrix_bytes();
  }
  constexpr size_t scale_offset(size_t layer, size_t kv_head) const {
    return v_offset(layer, kv_head) + matrix_bytes();
  }

  // Where dimension d of token row `token` is in K, and in V.
  constexpr size_t k_index(size_t token, size_t d) const {
    const size_t n = interleave();
    return d / n * n * kPageTokens + token * n + d % n;
  }
  constexpr size_t v_index(size_t token, size_t d) const {
    const size_t n = interleave();
    return token / n * n * head_dim + d * n + token % n;
  }

  // Copies token rows [0, num_rows) of every layer, K and V, from page `from` to page `to`.
  // REQUIRES: num_rows <= kPageTokens; both are pages of this layout and do not overlap.
  void CopyRows(const std::byte* from, std::byte* to, size_t num_rows) const;

  friend bool operator==(const PageLayout&, const PageLayout&) = default;
};

}  // namespace trellis
