// PageKey: names a whole page by the scope and all tokens up to its end, so that it can be known
// again when its tokens are gone. 128 bits of XXH3, chained page by page; nobody takes it for
// proof: what is matched is compared token by token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/types.h"

namespace trellis {

struct PageKey {
  uint64_t low = 0, high = 0;
  friend bool operator==(const PageKey&, const PageKey&) = default;
};

// Of the empty prefix of a scope.
PageKey KeyOfScope(std::string_view scope);
// Of the page of these kPageTokens tokens, behind the page (or scope) of `before`.
PageKey KeyOfPage(const PageKey& before, std::span<const TokenId> tokens);

}  // namespace trellis

template <>
struct std::hash<trellis::PageKey> {
  size_t operator()(const trellis::PageKey& key) const { return key.low; }
};
