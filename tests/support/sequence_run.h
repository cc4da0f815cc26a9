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

enum class Publish { kCommit, kNothing };

struct SequenceOptions {
  size_t chunk = 0;  // rows of a chunk at most; 0: all
  Publish publish = Publish::kCommit;
  std::string scope = "";
};

// Rows [first, first + num_rows) of `tokens`, all of whose logits are wanted, for Model::Forward().
// The lease has frames for them.
class ChunkRows {
 public:
  ChunkRows(const Lease& lease, std::span<const TokenId> tokens, size_t first, size_t num_rows)
      : all_(num_rows) {
    std::iota(all_.begin(), all_.end(), size_t{0});
    rows_ = {.pages = lease.pages(),
             .tokens = tokens.subspan(first, num_rows),
             .first_position = first,
             .first_unwritten = lease.num_rows(),
             .logit_rows = all_};
  }
  const SequenceRows& rows() const { return rows_; }

 private:
  std::vector<size_t> all_;
  SequenceRows rows_;
};

// Finds what the cache has of `tokens`, computes the rest, and commits each chunk unless told not
// to. If the cache has them all, the last is computed again. Returns the lease.
inline Lease RunSequence(Model& model, PageCache& cache, std::span<const TokenId> tokens,
                         const SequenceOptions& options, const RowsFunction& on_rows) {
  Lease lease = cache.Acquire(options.scope, tokens);
  size_t first = std::min(lease.num_matched(), tokens.size() - 1);
  std::vector<float> logits;
  while (first < tokens.size()) {
    const size_t left = tokens.size() - first;
    const size_t num_rows = options.chunk == 0 ? left : std::min(options.chunk, left);
    TRELLIS_CHECK(cache.Reserve(lease, first + num_rows).ok());
    const ChunkRows chunk(lease, tokens, first, num_rows);
    logits.resize(num_rows * model.spec().vocab_size);
    model.Forward({&chunk.rows(), 1}, logits.data());
    on_rows(first, num_rows, logits.data());
    first += num_rows;
    if (options.publish == Publish::kCommit) {
      cache.Commit(lease, tokens.subspan(lease.num_rows(), first - lease.num_rows()));
    }
  }
  return lease;
}

}  // namespace trellis
