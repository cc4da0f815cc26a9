// For tests: a lease, and what its rows have to hold.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kv/page_cache.h"
#include "kv/test_rows.h"

namespace trellis {

class TestSession {
 public:
  TestSession(PageCache& cache, const ScopeKey& scope, std::span<const TokenId> tokens)
      : cache_(&cache), lease_(cache.Acquire(scope, tokens)), scope_(scope) {
    tokens_.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(lease_.num_rows()));
  }

  const Lease& lease() const { return lease_; }
  const ScopeKey& scope() const { return scope_; }
  const std::vector<TokenId>& tokens() const { return tokens_; }  // of its rows

  Status Reserve(size_t num_tokens) { return cache_->Reserve(lease_, num_tokens); }

  // Writes and commits rows for `tokens`. REQUIRES: they are reserved.
  void Commit(std::span<const TokenId> tokens) {
    RowHash hash = EmptyRowHash(scope_);
    for (const TokenId token : tokens_) hash = NextRowHash(hash, token);
    for (const TokenId token : tokens) {
      hash = NextRowHash(hash, token);
      WriteTestRow(cache_->layout(), lease_.pages(), tokens_.size(), hash);
      tokens_.push_back(token);
    }
    cache_->Commit(lease_, tokens);
  }

  // Writes nonsense into all rows that it may write and has not committed.
  void Scribble() const {
    for (size_t row = lease_.num_rows(); row < lease_.num_reserved(); row++) {
      WriteTestRow(cache_->layout(), lease_.pages(), row, MixRow(0xbad, row));
    }
  }

  // The first row that holds something else than it should; num_rows() if there is none.
  size_t FirstWrongRow() const {
    RowHash hash = EmptyRowHash(scope_);
    for (size_t row = 0; row < lease_.num_rows(); row++) {
      hash = NextRowHash(hash, tokens_.at(row));
      if (!HoldsTestRow(cache_->layout(), lease_.pages(), row, hash)) return row;
    }
    return lease_.num_rows();
  }

  void Release() { cache_->Release(std::move(lease_)); }
  void Release(size_t num_useful) { cache_->Release(std::move(lease_), num_useful); }

 private:
  PageCache* cache_;
  Lease lease_;
  ScopeKey scope_;
  std::vector<TokenId> tokens_;
};

}  // namespace trellis
