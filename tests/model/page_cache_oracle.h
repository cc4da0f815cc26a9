// PageCacheOracle: what a PageCache must do, row by row and by definition.
//
// A tree with one token per vertex, and recursion over all of it for every question. No labels, no
// splits or merges, no lists of frames, no list of what is cold, no running counts: the number of
// pages is counted from the rows, the victim of an eviction is searched, what the leases pin is
// marked anew after every step. So none of the ways in which the real one can be wrong is shared.
//
//   pages(rows)   rows that are the last of a page + rows without children that are not
//   last_used     of a row: when the last lease that held it was released; before all others, if
//                 that said that nobody will ask for it again
//   victim        the leaf row used longest ago; with it go the rows above it in the same page, up
//                 to one that is held or has other children
//   together      rows of one page, unpinned and with no branch between them, are one unit of
//                 eviction: all are as warm as the first of them
//
// That is LRU. Which rows another policy gives up is not modelled: the oracle asks the cache what
// it still has (`Resident`), and sees to it that no row was given up that a lease holds, and no
// page more than was needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"

namespace trellis {

class PageCacheOracle {
 private:
  struct Tree;

 public:
  // If the last row is not the last of its page: whose that page is, seen from a lease.
  enum class Tail { kBorrowed, kWritten, kPrivate };

  struct Row;
  struct Lease {
    Tree* tree = nullptr;
    Row* last = nullptr;  // the tree's root: no rows
    size_t num_rows = 0;
    size_t num_reserved = 0;
    Tail tail = Tail::kBorrowed;
    size_t num_looked_up = 0, num_matched = 0;
    size_t num_reserves = 0;  // that succeeded
  };
  // Of leases that reserved something; since the last reset.
  struct Lookups {
    size_t lookups = 0, looked_up = 0, matched = 0;
  };
  struct Row {
    Row* parent = nullptr;  // null: the root, which is no row
    size_t depth = 0;       // rows up to and including this one
    std::map<TokenId, std::unique_ptr<Row>> children;
    std::vector<Lease*> leases;  // that end here
    Lease* writer = nullptr;
    int64_t last_used = 0;
    bool pinned = false;  // a lease ends here or below
  };
  // How often each of the rare things happened: a test that never gets there proves nothing.
  struct Rare {
    size_t evicted = 0, dropped_below = 0, taken_over = 0, rows_copied = 0, deduplicated = 0,
           handed_back = 0, refused = 0, detached = 0, unneeded = 0;
  };

  // How many of the tokens the cache under test has in that scope.
  using Resident = std::function<size_t(const std::string& scope, std::span<const TokenId> tokens)>;

  // `resident`: none if it evicts as LRU does.
  PageCacheOracle(size_t capacity, bool keep_finished, Resident resident);
  ~PageCacheOracle();

  Lease* Acquire(const std::string& scope, std::span<const TokenId> tokens);
  size_t MatchLength(const std::string& scope, std::span<const TokenId> tokens) const;
  size_t PagesNeeded(const Lease& lease, size_t num_tokens) const;
  bool Reserve(Lease& lease, size_t num_tokens);
  void Commit(Lease& lease, std::span<const TokenId> tokens);
  void Release(Lease& lease, size_t num_useful);
  void Reset();

  size_t num_committed() const;
  size_t num_private() const;
  size_t num_free() const { return capacity_ - num_committed() - num_private(); }
  size_t num_pinned() const;
  size_t num_available() const { return num_free() + num_committed() - num_pinned(); }
  size_t num_nodes() const;  // of the radix tree with these rows, under LRU
  // What was wrong with the rows that another policy gave up; empty: nothing.
  const std::string& wrongly_evicted() const { return wrongly_evicted_; }
  size_t num_scopes() const;
  size_t num_leases() const { return leases_.size(); }
  const Rare& rare() const { return rare_; }
  const Lookups& lookups() const { return lookups_; }

 private:
  struct Tree {
    std::optional<std::string> scope;  // none: detached
    Row root;
  };

  Tree* FindTree(const std::string& scope) const;
  bool IsBorrowing(const Lease& lease) const;
  bool FindFrames(Lease& lease, size_t num_tokens);
  bool EvictRows();
  void EvictAsTheCacheDid(size_t needed);
  void Settle();

  const size_t capacity_;
  const bool keep_finished_;
  const Resident resident_;
  std::list<std::unique_ptr<Tree>> trees_;
  std::list<std::unique_ptr<Lease>> leases_;
  int64_t clock_ = 0, cold_clock_ = 0;
  Rare rare_;
  Lookups lookups_;
  std::string wrongly_evicted_;
};

}  // namespace trellis
