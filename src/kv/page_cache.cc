#include "kv/page_cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "kv/page_pool.h"
#include "kv/prefix_tree.h"

namespace trellis {

// What a Lease holds. Its pages, by index:
//
//   0 ............... first_private ............... PagesFor(num_reserved)
//   | the tree's      | its own, Private: rows that are not committed yet  |
//
// If num_rows ends inside a page, that page is one of three:
//   private   the lease has its own copy of the rows, and writes behind them;
//   written   it is the tree's, and the lease is the one that writes behind the rows: node->writer;
//   borrowed  it is the tree's, read only. Which frame holds its rows may change while the lease
//             lives, so its entry in the page table is looked up when it is asked for.
struct LeaseState {
  bool is_borrowing() const {
    return node->has_open_tail() && first_private == frames.size() && node->writer != this;
  }
  // Nobody else holds its last row, or a row behind it.
  bool is_alone() const { return node->num_leases == 1 && node->num_pinned_children == 0; }
  size_t num_rows() const { return node->end(); }

  Root* root = nullptr;
  Node* node = nullptr;  // the path's last
  size_t num_looked_up = 0;
  size_t num_matched = 0;
  int32_t priority = 0;
  bool is_counted = false;  // its look-up is in the counters
  size_t num_reserved = 0;
  size_t first_private = 0;
  std::vector<FrameId> frames;    // [PagesFor(num_reserved)]
  std::vector<std::byte*> table;  // their addresses
};

struct PageCache::Impl {
  Impl(const Options& the_options, std::unique_ptr<PagePool> the_pool)
      : options(the_options),
        pool(std::move(the_pool)),
        tree(*pool, the_options.eviction, the_options.keep_finished ? pool->capacity() : 0) {}

  std::unique_ptr<LeaseState> Acquire(const ScopeKey& scope, std::span<const TokenId> tokens);
  Status Reserve(LeaseState& lease, size_t num_tokens);
  size_t PagesNeeded(const LeaseState& lease, size_t num_tokens) const;
  void Commit(LeaseState& lease, std::span<const TokenId> tokens);
  void Release(LeaseState& lease, size_t num_useful);
  MissReport Explain(const ScopeKey& scope, std::span<const TokenId> tokens) const;

  size_t AvailablePages() const {
    return pool->num_free() + pool->num_committed() - tree.num_pinned_pages();
  }
  void SetPage(LeaseState& lease, size_t page, FrameId frame) const {
    lease.frames[page] = frame;
    lease.table[page] = pool->Address(frame);
  }
  void CountLookup(LeaseState& lease);
  void AddPrivatePage(LeaseState& lease);
  void OwnTail(LeaseState& lease);
  void AdoptPages(LeaseState& lease, const Node& above, const Node& last);
  size_t FollowTree(LeaseState& lease, std::span<const TokenId> tokens);
  void AddRows(LeaseState& lease, std::span<const TokenId> tokens);
  void MoveTo(LeaseState& lease, Node& node);
  void Validate() const;
  void ValidateLease(const LeaseState& lease) const;
  void CheckIfDebug() const {
#if defined(TRELLIS_DEBUG_CHECKS)
    Validate();
#endif
  }

  const Options options;
  const std::unique_ptr<PagePool> pool;
  PrefixTree tree;
  std::unordered_set<LeaseState*> leases;
  PageCacheStats counters;  // only its last two lines
};

// --- Acquire ---

std::unique_ptr<LeaseState> PageCache::Impl::Acquire(const ScopeKey& scope,
                                                     std::span<const TokenId> tokens) {
  auto lease = std::make_unique<LeaseState>();
  lease->root = options.keep_finished ? &tree.FindOrAddRoot(scope) : &tree.AddDetachedRoot();
  auto [node, row] = tree.Match(*lease->root, tokens);
  // Only what was matched is pinned: the rest of the node can be evicted.
  lease->node = row < node->end() ? &tree.Split(*node, row) : node;
  tree.AddLease(*lease->node);

  lease->num_looked_up = tokens.size();
  lease->num_matched = lease->num_reserved = row;
  lease->first_private = PagesFor(row);
  lease->frames.resize(PagesFor(row));
  lease->table.resize(PagesFor(row));
  AdoptPages(*lease, *lease->root, *lease->node);
  leases.insert(lease.get());
  return lease;
}

// Puts the whole pages of the nodes below `above`, down to `last`, into the lease's table. Private
// pages that were there are freed.
void PageCache::Impl::AdoptPages(LeaseState& lease, const Node& above, const Node& last) {
  for (const Node* node = &last; node != &above; node = node->parent) {
    for (size_t i = 0; i < node->num_whole_pages(); i++) {
      const size_t page = node->first_page() + i;
      if (page >= lease.first_private) {
        pool->Free(lease.frames[page]);
        counters.pages_deduplicated++;
      }
      SetPage(lease, page, node->frames[i]);
    }
  }
}

// --- Explain ---

MissReport PageCache::Impl::Explain(const ScopeKey& scope, std::span<const TokenId> tokens) const {
  MissReport report;
  if (!options.keep_finished) {
    report.rest = tokens.size();
    report.rest_cause = MissCause::kDisabled;
    return report;
  }
  Root empty;
  empty.key = KeyOfScope(scope);
  Root* root = tree.FindRoot(scope);
  const PrefixTree::Place place = tree.Match(root == nullptr ? empty : *root, tokens);
  report.matched = place.row;
  report.evicted = tree.CountEvicted(place, tokens);
  report.rest = tokens.size() - report.matched - report.evicted;
  if (report.rest == 0 || report.evicted > 0) return report;

  if (place.row == 0) {
    report.rest_cause = MissCause::kCold;
    return report;
  }
  // Along the path released last, as a rule.
  constexpr size_t kShown = 32;
  size_t row = place.row;
  for (const Node* node = place.node; node != nullptr && report.instead.size() < kShown;
       node = node->first_child) {
    const auto label = std::span<const TokenId>(node->label).subspan(row - node->begin);
    const auto shown = label.first(std::min(kShown - report.instead.size(), label.size()));
    report.instead.insert(report.instead.end(), shown.begin(), shown.end());
    row = node->end();
  }
  if (!report.instead.empty()) report.rest_cause = MissCause::kDiverged;
  return report;
}

// --- Reserve ---

size_t PageCache::Impl::PagesNeeded(const LeaseState& lease, size_t num_tokens) const {
  if (num_tokens <= lease.num_reserved) return 0;
  const size_t copies = lease.is_borrowing() && !lease.is_alone() ? 1 : 0;
  return PagesFor(num_tokens) - lease.frames.size() + copies;
}

Status PageCache::Impl::Reserve(LeaseState& lease, size_t num_tokens) {
  if (num_tokens <= lease.num_reserved) return Status::Ok();
  size_t needed = PagesNeeded(lease, num_tokens);
  if (needed > AvailablePages()) {
    return Status(StatusCode::kResourceExhausted,
                  fmt::format("the KV cache has no room: {} pages are needed and {} of {} can be "
                              "freed, the others are in use",
                              needed, AvailablePages(), pool->capacity()));
  }
  const bool borrows = lease.is_borrowing();
  if (borrows && lease.is_alone() && !lease.node->is_leaf()) {
    // Other rows follow in the same page. Keep them if there is room for a copy.
    if (needed < AvailablePages()) {
      needed++;
    } else {
      counters.pages_evicted += tree.DropBelow(*lease.node);
    }
  }
  while (pool->num_free() < needed) {
    tree.EvictPage();
    counters.pages_evicted++;
  }
  if (borrows) OwnTail(lease);
  while (lease.frames.size() < PagesFor(num_tokens)) AddPrivatePage(lease);
  lease.num_reserved = num_tokens;
  return Status::Ok();
}

void PageCache::Impl::CountLookup(LeaseState& lease) {
  if (std::exchange(lease.is_counted, true)) return;
  counters.lookups++;
  counters.tokens_looked_up += lease.num_looked_up;
  counters.tokens_matched += lease.num_matched;
}

void PageCache::Impl::AddPrivatePage(LeaseState& lease) {
  lease.frames.emplace_back();
  lease.table.emplace_back();
  SetPage(lease, lease.frames.size() - 1, pool->Allocate());
}

// Makes the borrowed last page one that the lease may write.
void PageCache::Impl::OwnTail(LeaseState& lease) {
  Node& node = *lease.node;
  const size_t page = node.end() / kPageTokens;
  const FrameId tail = tree.TailFrame(node);
  if (node.is_leaf() && lease.is_alone()) {
    SetPage(lease, page, tail);
    node.writer = &lease;
    return;
  }
  const size_t num_rows = node.end() % kPageTokens;
  SetPage(lease, page, pool->Allocate());
  options.layout.CopyRows(pool->Address(tail), lease.table[page], num_rows);
  lease.first_private = page;
  counters.rows_copied += num_rows;
}

// --- Commit ---

void PageCache::Impl::Commit(LeaseState& lease, std::span<const TokenId> tokens) {
  TRELLIS_CHECK(tokens.size() <= lease.num_reserved - lease.num_rows());
  if (tokens.empty()) return;
  const size_t num_known = FollowTree(lease, tokens);
  if (num_known < tokens.size()) AddRows(lease, tokens.subspan(num_known));
}

// Walks as far as the tree has the same rows already; pages that it has whole replace the lease's.
// Returns how many tokens that were.
size_t PageCache::Impl::FollowTree(LeaseState& lease, std::span<const TokenId> tokens) {
  const size_t begin = lease.num_rows();
  auto [node, row] = tree.Match(*lease.node, tokens);
  if (row == begin) return 0;
  if (row < node->end()) node = &tree.Split(*node, row);
  AdoptPages(lease, *lease.node, *node);
  lease.first_private = row / kPageTokens;  // an open last page stays its own: it writes behind it
  MoveTo(lease, *node);
  return row - begin;
}

// Adds rows that the tree does not have behind the lease's last.
void PageCache::Impl::AddRows(LeaseState& lease, std::span<const TokenId> tokens) {
  Node& node = *lease.node;
  if (node.is_leaf() && node.has_open_tail()) {
    // Its last page is complete in the page that now follows. It goes back to its writer, who may
    // be this very lease, or another one that will need it as soon as it commits.
    LeaseState* writer = node.writer;
    const FrameId tail = tree.TakeTail(node);
    if (writer != nullptr) {
      writer->first_private--;
    } else {
      pool->Free(tail);
      counters.pages_deduplicated++;
    }
  }
  const size_t num_pages = PagesFor(node.end() + tokens.size());
  const auto frames =
      std::span<const FrameId>(lease.frames).first(num_pages).subspan(lease.first_private);
  if (node.is_leaf() && !node.is_root() && lease.is_alone()) {
    tree.Extend(node, tokens, frames);
  } else {
    MoveTo(lease, tree.AddChild(node, tokens, frames));
  }
  lease.first_private = num_pages;
  if (lease.node->has_open_tail()) lease.node->writer = &lease;
}

// To a node below its own. What it leaves stays pinned, from below.
void PageCache::Impl::MoveTo(LeaseState& lease, Node& node) {
  Node& left = *std::exchange(lease.node, &node);
  tree.AddLease(node);
  tree.RemoveLease(*lease.root, left);
}

// --- Release ---

void PageCache::Impl::Release(LeaseState& lease, size_t num_useful) {
  for (size_t page = lease.first_private; page < lease.frames.size(); page++) {
    pool->Free(lease.frames[page]);
  }
  Node& node = *lease.node;
  if (node.writer == &lease) node.writer = nullptr;
  if (lease.is_counted) tree.CountUse(node, lease.priority);  // not of who found no room
  auto use = PrefixTree::Use::kLikely;
  if (num_useful < node.end() && node.is_leaf() && lease.is_alone()) {
    const size_t border = PagesFor(num_useful) * kPageTokens;
    if (border < node.end()) {
      use = PrefixTree::Use::kUnlikely;
      if (border > node.begin) tree.Split(node, border);
    }
  }
  tree.RemoveLease(*lease.root, node, use);
  leases.erase(&lease);
}

// --- Validate ---

namespace {

void Expect(bool holds, const char* invariant) {
  if (holds) return;
  fmt::print(stderr, "PageCache: broken invariant: {}\n", invariant);
  std::fflush(stderr);
  std::abort();
}

}  // namespace

void PageCache::Impl::Validate() const {
  tree.Validate();
  Expect(pool->num_free() + pool->num_private() + pool->num_committed() == pool->capacity(),
         "free + private + committed == capacity");

  size_t num_private = 0;
  std::unordered_map<const Node*, size_t> leases_at;
  std::unordered_set<FrameId> private_frames;
  for (const LeaseState* lease : leases) {
    ValidateLease(*lease);
    leases_at[lease->node]++;
    num_private += lease->frames.size() - lease->first_private;
    private_frames.insert(lease->frames.begin() + static_cast<ptrdiff_t>(lease->first_private),
                          lease->frames.end());
  }
  Expect(num_private == pool->num_private(), "every private frame belongs to a lease");
  Expect(private_frames.size() == num_private, "a private frame belongs to one lease");
  size_t num_leases = 0;
  for (const auto& [node, count] : leases_at) {
    Expect(node->num_leases == count, "a node counts the leases that end there");
  }
  tree.ForEachNode([&](const Node& node) {
    num_leases += node.num_leases;
    Expect(node.writer == nullptr || leases.contains(node.writer), "who writes has a lease");
    Expect(node.writer == nullptr || node.writer->node == &node, "who writes ends there");
  });
  Expect(num_leases == leases.size(), "no node is pinned by a lease that is gone");
}

void PageCache::Impl::ValidateLease(const LeaseState& lease) const {
  const size_t num_rows = lease.num_rows();
  Expect(lease.num_matched <= num_rows && num_rows <= lease.num_reserved,
         "matched <= rows <= reserved");
  Expect(lease.frames.size() == PagesFor(lease.num_reserved), "each reserved page has a frame");
  Expect(lease.table.size() == lease.frames.size(), "each frame has its address in the table");
  Expect(num_rows == lease.num_reserved || !lease.is_borrowing(),
         "whoever has reserved rows may write them");
  Expect(lease.first_private == num_rows / kPageTokens || lease.first_private == PagesFor(num_rows),
         "private pages begin where the committed rows end");
  const Node* top = lease.node;
  for (; !top->is_root(); top = top->parent) {
    for (size_t i = 0; i < top->num_whole_pages(); i++) {
      Expect(lease.frames[top->first_page() + i] == top->frames[i],
             "whole pages of a lease are those of its path");
    }
  }
  Expect(top == lease.root, "a lease knows its root");
  if (lease.node->writer == &lease) {
    Expect(lease.frames[num_rows / kPageTokens] == tree.TailFrame(*lease.node),
           "who writes behind a page has it in its table");
  }
  for (size_t page = 0; page < lease.frames.size(); page++) {
    const bool is_borrowed = lease.is_borrowing() && page + 1 == lease.frames.size();
    if (is_borrowed) continue;
    Expect(lease.table[page] == pool->Address(lease.frames[page]), "the page table is current");
    Expect(pool->state(lease.frames[page]) == (page < lease.first_private
                                                   ? PagePool::FrameState::kCommitted
                                                   : PagePool::FrameState::kPrivate),
           "a lease's pages are committed, then private");
  }
}

// --- PageCache ---

Result<std::unique_ptr<PageCache>> PageCache::Create(const Options& options) {
  TRELLIS_ASSIGN_OR_RETURN(auto pool,
                           PagePool::Create(options.layout.page_bytes(), options.capacity_bytes));
  return std::unique_ptr<PageCache>(
      new PageCache(std::make_unique<Impl>(options, std::move(pool))));
}

PageCache::PageCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

PageCache::~PageCache() {
  TRELLIS_CHECK(impl_->leases.empty());
}

Lease PageCache::Acquire(const ScopeKey& scope, std::span<const TokenId> tokens) {
  Lease lease(this, impl_->Acquire(scope, tokens));
  impl_->CheckIfDebug();
  return lease;
}

size_t PageCache::MatchLength(const ScopeKey& scope, std::span<const TokenId> tokens) const {
  Root* root = impl_->options.keep_finished ? impl_->tree.FindRoot(scope) : nullptr;
  return root == nullptr ? 0 : impl_->tree.Match(*root, tokens).row;
}

MissReport PageCache::Explain(const ScopeKey& scope, std::span<const TokenId> tokens) const {
  return impl_->Explain(scope, tokens);
}

const char* MissCauseName(MissCause cause) {
  switch (cause) {
    case MissCause::kDisabled:
      return "disabled";
    case MissCause::kCold:
      return "cold";
    case MissCause::kEvicted:
      return "evicted";
    case MissCause::kDiverged:
      return "diverged";
    case MissCause::kNewTokens:
      return "new_tokens";
    case MissCause::kScope:
      return "scope";
  }
  return "";
}

void PageCache::SetPriority(Lease& lease, int32_t priority) {
  TRELLIS_CHECK(lease.cache_ == this);
  lease.state_->priority = priority;
}

Status PageCache::Reserve(Lease& lease, size_t num_tokens) {
  TRELLIS_CHECK(lease.cache_ == this);
  Status status = impl_->Reserve(*lease.state_, num_tokens);
  if (status.ok()) impl_->CountLookup(*lease.state_);
  impl_->CheckIfDebug();
  return status;
}

size_t PageCache::PagesNeeded(const Lease& lease, size_t num_tokens) const {
  TRELLIS_CHECK(lease.cache_ == this);
  return impl_->PagesNeeded(*lease.state_, num_tokens);
}

void PageCache::Commit(Lease& lease, std::span<const TokenId> tokens) {
  TRELLIS_CHECK(lease.cache_ == this);
  impl_->Commit(*lease.state_, tokens);
  impl_->CheckIfDebug();
}

void PageCache::Release(Lease lease) {
  TRELLIS_CHECK(!lease || lease.cache_ == this);
}

void PageCache::Release(Lease lease, size_t num_useful) {
  TRELLIS_CHECK(lease.cache_ == this);
  impl_->Release(*lease.state_, num_useful);
  lease.cache_ = nullptr;
  impl_->CheckIfDebug();
}

size_t PageCache::AvailablePages() const {
  return impl_->AvailablePages();
}

void PageCache::Reset() {
  impl_->tree.Reset();
  impl_->counters = PageCacheStats();
  impl_->CheckIfDebug();
}

const PageLayout& PageCache::layout() const {
  return impl_->options.layout;
}

bool PageCache::keeps_finished() const {
  return impl_->options.keep_finished;
}

PageCacheStats PageCache::Stats() const {
  PageCacheStats stats = impl_->counters;
  stats.capacity = impl_->pool->capacity();
  stats.free = impl_->pool->num_free();
  stats.private_pages = impl_->pool->num_private();
  stats.committed = impl_->pool->num_committed();
  stats.pinned = impl_->tree.num_pinned_pages();
  stats.page_bytes = impl_->pool->page_bytes();
  stats.num_nodes = impl_->tree.num_nodes();
  stats.num_leases = impl_->leases.size();
  stats.num_scopes = impl_->tree.num_scopes();
  stats.tree_bytes = impl_->tree.num_bytes();
  stats.num_ghosts = impl_->tree.num_ghosts();
  stats.ghost_bytes = impl_->tree.num_ghost_bytes();
  return stats;
}

TreeView PageCache::View(const TreeViewOptions& options) const {
  std::vector<const Node*> lease_ends;
  for (const LeaseState* lease : impl_->leases) lease_ends.push_back(lease->node);
  TreeView view = impl_->tree.View(options, lease_ends);
  view.num_pages = impl_->pool->num_committed();
  return view;
}

void PageCache::Validate() const {
  impl_->Validate();
}

std::string PageCache::Dump() const {
  return impl_->tree.Dump();
}

// --- Lease ---

Lease::Lease() = default;

Lease::Lease(PageCache* cache, std::unique_ptr<LeaseState> state)
    : cache_(cache), state_(std::move(state)) {}

Lease::Lease(Lease&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), state_(std::move(other.state_)) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  Lease old = std::move(*this);
  cache_ = std::exchange(other.cache_, nullptr);
  state_ = std::move(other.state_);
  return *this;
}

Lease::~Lease() {
  if (cache_ == nullptr) return;
  cache_->impl_->Release(*state_, state_->num_rows());
  cache_->impl_->CheckIfDebug();
}

size_t Lease::num_matched() const {
  TRELLIS_CHECK(cache_ != nullptr);
  return state_->num_matched;
}

size_t Lease::num_rows() const {
  TRELLIS_CHECK(cache_ != nullptr);
  return state_->num_rows();
}

size_t Lease::num_reserved() const {
  TRELLIS_CHECK(cache_ != nullptr);
  return state_->num_reserved;
}

uint64_t Lease::node_id() const {
  TRELLIS_CHECK(cache_ != nullptr);
  return state_->node->id;
}

std::span<std::byte* const> Lease::pages() const {
  TRELLIS_CHECK(cache_ != nullptr);
  if (state_->is_borrowing()) {
    const PageCache::Impl& impl = *cache_->impl_;
    impl.SetPage(*state_, state_->frames.size() - 1, impl.tree.TailFrame(*state_->node));
  }
  return state_->table;
}

}  // namespace trellis
