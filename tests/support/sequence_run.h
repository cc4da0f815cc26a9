// Running tokens through the real model and the real cache, as the engine does for one request.
#pragma once

#include <algorithm>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "kv/page_cache.h"
#include "model/model.h"

namespace trellis {

using Tokens = std::vector<TokenId>;

inline std::unique_ptr<PageCache> MakeCacheFor(const Model& model, size_t num_pages) {
  const PageLayout layout = model.page_layout();
  auto cache =
      PageCache::Create({.layout = layout, .capacity_bytes = num_pages * layout.page_bytes()});
  TRELLIS_CHECK(cache.ok());
  return std::move(cache).value();
}

// Told about each chunk: rows [first, first + num_rows) and their logits [num_rows, vocab].
using RowsFunction = std::function<void(size_t first, size_t num_rows, const float* logits)>;

// Finds what the cache has of `tokens`, computes the rest in chunks of `chunk` rows, all of whose
// logits go to `on_rows`, and commits each. Returns the lease. If the cache has them all, the last
// is computed again.
inline Lease RunSequence(Model& model, PageCache& cache, std::span<const TokenId> tokens,
                         size_t chunk, const RowsFunction& on_rows) {
  Lease lease = cache.Acquire("", tokens);
  size_t first = std::min(lease.num_matched(), tokens.size() - 1);
  std::vector<float> logits;
  while (first < tokens.size()) {
    const size_t num_rows = std::min(chunk, tokens.size() - first);
    TRELLIS_CHECK(cache.Reserve(lease, first + num_rows).ok());
    std::vector<size_t> all(num_rows);
    std::iota(all.begin(), all.end(), size_t{0});
    logits.resize(num_rows * model.spec().vocab_size);
    const SequenceRows rows{.pages = lease.pages(),
                            .tokens = tokens.subspan(first, num_rows),
                            .first_position = first,
                            .first_unwritten = lease.num_rows(),
                            .logit_rows = all};
    model.Forward({&rows, 1}, logits.data());
    on_rows(first, num_rows, logits.data());
    const size_t known = lease.num_rows() - first;
    cache.Commit(lease, rows.tokens.subspan(known));
    first += num_rows;
  }
  return lease;
}

}  // namespace trellis
