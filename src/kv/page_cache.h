// PageCache: the facade of kv/. One radix tree over token prefixes whose nodes own pages of keys
// and values.
//
// A request holds a Lease: a pin on the path of its tokens. The lease starts with what the tree
// already has (token-exact), grows by Reserve() (frames for the tokens about to be computed), and
// publishes what was computed by Commit(), so that others can match it at once, while it is still
// growing. Destroying the lease unpins; what was committed stays until evicted.
//
//   [scope] --- s y s t e m ... ---+--- u s e r A ... a n s w e r   <- lease 1 pins this path
//                                  |
//                                  +--- u s e r B ...               <- lease 2 pins this one
//
// THREADS: none of its own; exactly one thread (the engine's) calls it. No locks.
// INVARIANTS (Validate() checks them all):
//   1. free + private + committed == capacity; a frame is in exactly one of these.
//   2. Rows below a page's committed count never change and can be matched, even while its one
//      owner appends behind them.
//   3. A resident node's parent is resident; eviction trims pages from the end of the unpinned leaf
//      that the policy (kv/eviction_policy.h) gives up, and never a pinned row.
//   4. Scope is the root of the key: nothing matches across scopes. Token ids are compared on every
//      hit.
//   5. One hard budget: Reserve() says kResourceExhausted, it never over-allocates.
// The structure behind it is described in kv/prefix_tree.h, with pictures in docs/cache.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/page_layout.h"
#include "base/status.h"
#include "base/types.h"
#include "kv/eviction_policy.h"
#include "kv/tree_view.h"

namespace trellis {

class PageCache;
struct LeaseState;  // page_cache.cc

// Who may share pages: tenant or salt. Any bytes, compared whole. Model and layout are no part of
// it: a cache is made for one model and lives no longer than the process that serves it.
using ScopeKey = std::string;

// A pin on a path. Move-only; destroying it releases. Outlived by its cache.
class Lease {
 public:
  Lease();
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

  // False: a default-constructed or moved-from lease, which has no other use than to be assigned
  // to.
  explicit operator bool() const { return cache_ != nullptr; }

  // Rows that were resident when the lease was acquired.
  size_t num_matched() const;
  // Rows that are valid now: matched + committed since. tokens()[0 .. num_rows()).
  size_t num_rows() const;
  // Positions that have a frame: num_rows() <= num_reserved(). If equal, no row may be written.
  size_t num_reserved() const;
  // Of the node that it ends in now: TreeView::Node::id.
  uint64_t node_id() const;
  // Page table, [PagesFor(num_reserved())]. Valid until the next call on the cache that is not
  // const: whatever happens there may move a page's rows to another frame.
  std::span<std::byte* const> pages() const;

 private:
  friend class PageCache;
  Lease(PageCache* cache, std::unique_ptr<LeaseState> state);
  PageCache* cache_ = nullptr;
  std::unique_ptr<LeaseState> state_;
};

// Why tokens of a prompt have to be computed.
enum class MissCause {
  kDisabled,   // nothing is kept (Options::keep_finished)
  kCold,       // nothing of this scope begins as the prompt does
  kEvicted,    // they were there; there was no room
  kDiverged,   // what is there goes on with other tokens
  kNewTokens,  // what is there ends here: the prompt goes on from it
  kScope,      // another scope of the same client has them (Explain never says so: it knows one)
};
inline constexpr size_t kNumMissCauses = 6;
const char* MissCauseName(
    MissCause cause);  // "disabled", "cold", "evicted", "diverged", "new_tokens", "scope"

// What a look-up of a prompt would find, and why not more. matched + evicted + rest are all its
// tokens.
struct MissReport {
  size_t matched = 0;
  // Behind these, that were there once; known of whole pages, and of so many evictions back as the
  // cache has pages.
  size_t evicted = 0;
  size_t rest = 0;                               // behind these
  MissCause rest_cause = MissCause::kNewTokens;  // anything but kEvicted
  // kDiverged: the first tokens, up to 32, of what is there instead, behind `matched`; of several
  // branches one that was made or released last.
  std::vector<TokenId> instead;
};

struct PageCacheStats {
  // Pages; free + private + committed == capacity.
  size_t capacity = 0, free = 0, private_pages = 0, committed = 0;
  size_t pinned = 0;  // committed pages that leases need: eviction can free all others
  size_t page_bytes = 0;
  size_t num_nodes = 0, num_leases = 0, num_scopes = 0;
  size_t tree_bytes = 0;                   // overhead: nodes, labels, keys, tables
  size_t num_ghosts = 0, ghost_bytes = 0;  // and what is remembered of pages that are gone
  // Since start or Reset(). A look-up counts when its lease's first Reserve succeeds, so that a
  // request that tries again and again until there is room for it counts once.
  uint64_t lookups = 0, tokens_looked_up = 0, tokens_matched = 0;
  uint64_t pages_evicted = 0, rows_copied = 0, pages_deduplicated = 0;
};

class PageCache {
 public:
  struct Options {
    PageLayout layout;
    // floor(capacity_bytes / page_bytes) frames, mapped at once, touched when used.
    size_t capacity_bytes = 0;
    EvictionPolicyKind eviction = EvictionPolicyKind::kLru;
    // false (--no-prefix-cache): nothing is matched and nothing stays after its lease.
    bool keep_finished = true;
  };
  // ERRORS: kInvalidArgument when the budget holds no page, kResourceExhausted when it cannot be
  // mapped.
  static Result<std::unique_ptr<PageCache>> Create(const Options& options);
  // REQUIRES: no lease is left.
  ~PageCache();

  // Pins the longest resident prefix of `tokens` in `scope`; possibly empty. Never fails, allocates
  // no page. COST: O(matched tokens), and moving a node's tokens if the match ends inside it; 128k
  // tokens under 1 ms.
  Lease Acquire(const ScopeKey& scope, std::span<const TokenId> tokens);

  // Of the request that holds the lease (0 if nobody says): smaller is worth more to the policy
  // that looks at it (kPriority), from when the lease is released.
  void SetPriority(Lease& lease, int32_t priority);

  // What Acquire would match, without pinning or touching recency.
  size_t MatchLength(const ScopeKey& scope, std::span<const TokenId> tokens) const;

  // Says the same as MatchLength and why it is not all. COST: as MatchLength, and a hash for each
  // page that was evicted.
  MissReport Explain(const ScopeKey& scope, std::span<const TokenId> tokens) const;

  // Gives the lease frames so that positions [0, num_tokens) have one, evicting if needed. Takes
  // over or copies a partly filled last page, so rows num_rows() .. num_tokens - 1 may be written.
  // Succeeds exactly if PagesNeeded(lease, num_tokens) <= AvailablePages().
  // ERRORS: kResourceExhausted: every other page is pinned or private; the lease is unchanged, and
  // nothing was evicted.
  Status Reserve(Lease& lease, size_t num_tokens);

  // Frames that Reserve(lease, num_tokens) has to find. One for each new page, and one for the copy
  // of a matched page that is filled in part, if another lease holds that page too. If no other
  // lease does, Reserve copies it where there is room and takes it over where there is none: what
  // else is cached behind it is dropped for that.
  size_t PagesNeeded(const Lease& lease, size_t num_tokens) const;

  // Says that rows num_rows() .. num_rows() + tokens.size() - 1 now hold the keys and values of
  // `tokens`, and publishes them. If the tree already has such rows (another lease was faster) the
  // tree's pages replace the lease's as they fill. REQUIRES: they were reserved and written.
  void Commit(Lease& lease, std::span<const TokenId> tokens);

  // Unpins. Same as destroying the lease.
  void Release(Lease lease);
  // The same for one whose rows behind the first num_useful nobody will ask for again (a chat whose
  // template drops what was generated): what only this lease has of them goes first, from the next
  // page border on.
  void Release(Lease lease, size_t num_useful);

  // Frames that Reserve can hand out now: free ones, and all that eviction can free. Exact. O(1).
  size_t AvailablePages() const;

  // Drops everything that no lease pins. What is pinned can no longer be matched by later Acquires,
  // and goes with its lease.
  void Reset();

  const PageLayout& layout() const;
  bool keeps_finished() const;   // Options::keep_finished
  PageCacheStats Stats() const;  // O(1)
  // The nodes that leases pin, then those that were used last, of those the larger first; a node
  // only with all above it. What is not shown is counted. Of more scopes than max_nodes, those with
  // leases are looked at, then any. COST: O(max_nodes log max_nodes), and the nodes on the path of
  // each lease, whatever else is in the tree. REQUIRES: max_nodes > 0.
  TreeView View(const TreeViewOptions& options) const;

  // Checks every invariant; aborts with a message naming the one that broke. O(tree). Tests call
  // it; TRELLIS_DEBUG_CHECKS builds do, after every call that changes something.
  void Validate() const;
  // The tree as text, one node a line, for tests and bug reports.
  std::string Dump() const;

 private:
  friend class Lease;
  struct Impl;
  explicit PageCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
