// For tests: rows whose every value says what it was computed from, the scope and all tokens up to
// and including its own, as real keys and values do. So a wrong frame, a row too many or too few,
// or a byte overwritten shows wherever the row is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/page_layout.h"
#include "base/types.h"

namespace trellis {

// What row i of a path stands for; of the empty prefix if there is no row yet.
using RowHash = uint64_t;

inline RowHash MixRow(RowHash hash, uint64_t value) {
  uint64_t x = (hash ^ value) * 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  return x ^ (x >> 27);
}

inline RowHash EmptyRowHash(const std::string& scope) {
  RowHash hash = 1;
  for (const char c : scope) hash = MixRow(hash, static_cast<unsigned char>(c) + 1u);
  return hash;
}

inline RowHash NextRowHash(RowHash previous, TokenId token) {
  return MixRow(previous, static_cast<uint32_t>(token) + 1000u);
}

// Calls visit(byte, value) for each byte of the row's elements, K and V, that belongs to `hash`.
template <typename Visit>
void ForEachByte(const PageLayout& layout, std::span<std::byte* const> pages, size_t row,
                 RowHash hash, Visit visit) {
  std::byte* page = pages[row / kPageTokens];
  const size_t in_page = row % kPageTokens, size = layout.element_bytes();
  for (size_t layer = 0; layer < layout.num_layers; layer++) {
    for (size_t head = 0; head < layout.num_kv_heads; head++) {
      for (size_t d = 0; d < layout.head_dim; d++) {
        const uint64_t value = MixRow(hash, (layer * layout.num_kv_heads + head) * 64 + d);
        std::byte* k = page + layout.k_offset(layer, head) + layout.k_index(in_page, d) * size;
        std::byte* v = page + layout.v_offset(layer, head) + layout.v_index(in_page, d) * size;
        for (size_t i = 0; i < size; i++) {
          visit(k[i], static_cast<std::byte>(value >> (8 * i)));
          visit(v[i], static_cast<std::byte>(value >> (16 + 8 * i)));
        }
      }
    }
  }
}

inline void WriteTestRow(const PageLayout& layout, std::span<std::byte* const> pages, size_t row,
                         RowHash hash) {
  ForEachByte(layout, pages, row, hash, [](std::byte& byte, std::byte value) { byte = value; });
}

inline bool HoldsTestRow(const PageLayout& layout, std::span<std::byte* const> pages, size_t row,
                         RowHash hash) {
  bool same = true;
  ForEachByte(layout, pages, row, hash,
              [&](std::byte byte, std::byte value) { same &= byte == value; });
  return same;
}

}  // namespace trellis
