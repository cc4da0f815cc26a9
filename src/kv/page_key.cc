#include "kv/page_key.h"

#include <cstring>

#include "base/check.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace trellis {
namespace {

PageKey FromHash(const XXH128_hash_t& hash) {
  return {hash.low64, hash.high64};
}

}  // namespace

PageKey KeyOfScope(std::string_view scope) {
  return FromHash(XXH3_128bits(scope.data(), scope.size()));
}

PageKey KeyOfPage(const PageKey& before, std::span<const TokenId> tokens) {
  TRELLIS_CHECK(tokens.size() == kPageTokens);
  std::byte bytes[sizeof(PageKey) + kPageTokens * sizeof(TokenId)];
  std::memcpy(bytes, &before, sizeof(before));
  std::memcpy(bytes + sizeof(before), tokens.data(), tokens.size_bytes());
  return FromHash(XXH3_128bits(bytes, sizeof(bytes)));
}

}  // namespace trellis
