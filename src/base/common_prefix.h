// How far two sequences of tokens are the same.
#pragma once

#include <algorithm>
#include <cstring>
#include <span>

#include "base/types.h"

namespace trellis {

// Length of the longest common prefix.
inline size_t CommonPrefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  constexpr size_t kStretch = 256;  // memcmp runs at the speed of memory, but does not say where
  const size_t size = std::min(a.size(), b.size());
  size_t same = 0;
  while (same + kStretch <= size &&
         std::memcmp(&a[same], &b[same], kStretch * sizeof(TokenId)) == 0) {
    same += kStretch;
  }
  while (same < size && a[same] == b[same]) same++;
  return same;
}

}  // namespace trellis
