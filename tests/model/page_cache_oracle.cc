#include "page_cache_oracle.h"

#include <algorithm>
#include <functional>

namespace trellis {
namespace {

using Row = PageCacheOracle::Row;

bool EndsPage(size_t num_rows) {
  return num_rows % kPageTokens == 0;
}

void ForEachRow(const Row& row, const std::function<void(const Row&)>& visit) {
  if (row.parent != nullptr) visit(row);
  for (const auto& [token, child] : row.children) ForEachRow(*child, visit);
}

size_t LeasesFrom(const Row& row) {
  size_t count = row.leases.size();
  for (const auto& [token, child] : row.children) count += LeasesFrom(*child);
  return count;
}

bool IsPinned(const Row& row) {
  return row.pinned;
}

bool MarkPinned(Row& row) {
  row.pinned = !row.leases.empty();
  for (auto& [token, child] : row.children) row.pinned |= MarkPinned(*child);
  return row.pinned;
}

// Pages of the rows for which `counts` holds; they are closed under taking the parent.
size_t PagesOf(const Row& root, bool (*counts)(const Row&)) {
  size_t pages = 0;
  ForEachRow(root, [&](const Row& row) {
    if (!counts(row)) return;
    const bool is_leaf = std::none_of(row.children.begin(), row.children.end(),
                                      [&](const auto& child) { return counts(*child.second); });
    if (EndsPage(row.depth) || is_leaf) pages++;
  });
  return pages;
}

// Walks from `row` along `tokens`; returns how many there are.
size_t Walk(Row*& row, std::span<const TokenId> tokens) {
  size_t num_found = 0;
  for (const TokenId token : tokens) {
    const auto it = row->children.find(token);
    if (it == row->children.end()) break;
    row = it->second.get();
    num_found++;
  }
  return num_found;
}

void RemoveRow(Row& row) {
  for (auto it = row.parent->children.begin(); it != row.parent->children.end(); ++it) {
    if (it->second.get() == &row) {
      row.parent->children.erase(it);
      return;
    }
  }
}

void PruneUnpinned(Row& row) {
  std::erase_if(row.children, [](const auto& child) { return !IsPinned(*child.second); });
  for (auto& [token, child] : row.children) PruneUnpinned(*child);
}

// Rows that are one unit of eviction are as warm as the first of them.
void WarmTogether(Row& row) {
  for (auto& [token, child] : row.children) {
    if (row.parent != nullptr && row.children.size() == 1 && !IsPinned(row) &&
        !EndsPage(row.depth)) {
      child->last_used = row.last_used;
    }
    WarmTogether(*child);
  }
}

void FindColdestLeaf(Row& row, Row*& coldest) {
  if (row.parent != nullptr && row.children.empty() && row.leases.empty() &&
      (coldest == nullptr || row.last_used < coldest->last_used)) {
    coldest = &row;
  }
  for (auto& [token, child] : row.children) FindColdestLeaf(*child, coldest);
}

}  // namespace

PageCacheOracle::PageCacheOracle(size_t capacity, bool keep_finished, Resident resident)
    : capacity_(capacity), keep_finished_(keep_finished), resident_(std::move(resident)) {}

PageCacheOracle::~PageCacheOracle() = default;

PageCacheOracle::Tree* PageCacheOracle::FindTree(const std::string& scope) const {
  for (const auto& tree : trees_) {
    if (tree->scope == scope) return tree.get();
  }
  return nullptr;
}

PageCacheOracle::Lease* PageCacheOracle::Acquire(const std::string& scope,
                                                 std::span<const TokenId> tokens) {
  Tree* tree = keep_finished_ ? FindTree(scope) : nullptr;
  if (tree == nullptr) {
    trees_.push_back(std::make_unique<Tree>());
    tree = trees_.back().get();
    if (keep_finished_) tree->scope = scope;
  }
  leases_.push_back(std::make_unique<Lease>());
  Lease& lease = *leases_.back();
  lease.tree = tree;
  lease.last = &tree->root;
  lease.num_rows = lease.num_reserved = Walk(lease.last, tokens);
  lease.last->leases.push_back(&lease);
  lease.num_looked_up = tokens.size();
  lease.num_matched = lease.num_rows;
  Settle();
  return &lease;
}

size_t PageCacheOracle::MatchLength(const std::string& scope,
                                    std::span<const TokenId> tokens) const {
  Tree* tree = keep_finished_ ? FindTree(scope) : nullptr;
  if (tree == nullptr) return 0;
  Row* row = &tree->root;
  return Walk(row, tokens);
}

bool PageCacheOracle::IsBorrowing(const Lease& lease) const {
  return !EndsPage(lease.num_rows) && lease.tail == Tail::kBorrowed;
}

size_t PageCacheOracle::PagesNeeded(const Lease& lease, size_t num_tokens) const {
  if (num_tokens <= lease.num_reserved) return 0;
  const bool must_copy = IsBorrowing(lease) && LeasesFrom(*lease.last) > 1;
  return PagesFor(num_tokens) - PagesFor(lease.num_reserved) + (must_copy ? 1 : 0);
}

bool PageCacheOracle::Reserve(Lease& lease, size_t num_tokens) {
  if (!FindFrames(lease, num_tokens)) return false;
  if (++lease.num_reserves == 1) {
    lookups_.lookups++;
    lookups_.looked_up += lease.num_looked_up;
    lookups_.matched += lease.num_matched;
  }
  return true;
}

bool PageCacheOracle::FindFrames(Lease& lease, size_t num_tokens) {
  if (num_tokens <= lease.num_reserved) return true;
  size_t needed = PagesNeeded(lease, num_tokens);
  if (needed > num_available()) {
    rare_.refused++;
    return false;
  }
  Row& last = *lease.last;
  const bool is_alone = LeasesFrom(last) == 1;
  if (IsBorrowing(lease) && is_alone && !last.children.empty()) {
    if (needed < num_available()) {
      needed++;
    } else {
      const size_t before = num_committed();
      last.children.clear();
      rare_.evicted += before - num_committed();
      rare_.dropped_below++;
    }
  }
  if (num_free() < needed && resident_) EvictAsTheCacheDid(needed);
  while (num_free() < needed && !resident_) {
    if (EvictRows()) rare_.evicted++;
  }
  if (IsBorrowing(lease)) {
    if (is_alone && last.children.empty()) {
      lease.tail = Tail::kWritten;
      last.writer = &lease;
      rare_.taken_over++;
    } else {
      lease.tail = Tail::kPrivate;
      rare_.rows_copied += lease.num_rows % kPageTokens;
    }
  }
  lease.num_reserved = num_tokens;
  return true;
}

// Returns whether that freed a page.
bool PageCacheOracle::EvictRows() {
  const size_t before = num_committed();
  Row* row = nullptr;
  for (const auto& tree : trees_) FindColdestLeaf(tree->root, row);
  do {
    Row& parent = *row->parent;
    RemoveRow(*row);
    row = &parent;
  } while (!EndsPage(row->depth) && row->children.empty() && !IsPinned(*row));
  Settle();
  return num_committed() < before;
}

// Removes the rows that the cache has no longer.
void PageCacheOracle::EvictAsTheCacheDid(size_t needed) {
  const size_t before = num_committed();
  std::vector<TokenId> path;
  const std::function<void(const std::string&, Row&)> follow = [&](const std::string& scope,
                                                                   Row& row) {
    std::erase_if(row.children, [&](const auto& child) {
      path.push_back(child.first);
      const bool is_gone = resident_(scope, path) < path.size();
      if (is_gone && IsPinned(*child.second)) wrongly_evicted_ = "rows that a lease holds";
      path.pop_back();
      return is_gone && !IsPinned(*child.second);
    });
    for (auto& [token, child] : row.children) {
      path.push_back(token);
      follow(scope, *child);
      path.pop_back();
    }
  };
  for (const auto& tree : trees_)
    if (tree->scope) follow(*tree->scope, tree->root);
  Settle();
  rare_.evicted += before - num_committed();
  if (num_free() != needed) {
    wrongly_evicted_ = "another number of pages than was needed: " + std::to_string(num_free()) +
                       " are free, needed are " + std::to_string(needed);
  }
}

void PageCacheOracle::Commit(Lease& lease, std::span<const TokenId> tokens) {
  if (tokens.empty()) return;
  std::erase(lease.last->leases, &lease);
  const size_t num_found = Walk(lease.last, tokens);
  const size_t whole_before = lease.num_rows / kPageTokens;
  lease.num_rows += num_found;
  rare_.deduplicated += lease.num_rows / kPageTokens - whole_before;
  if (num_found > 0) lease.tail = Tail::kPrivate;

  tokens = tokens.subspan(num_found);
  if (!tokens.empty()) {
    Row& parent = *lease.last;
    if (parent.children.empty() && !EndsPage(parent.depth)) {
      if (parent.writer == nullptr) {
        rare_.deduplicated++;
      } else {
        if (parent.writer != &lease) rare_.handed_back++;
        parent.writer->tail = Tail::kPrivate;
        parent.writer = nullptr;
      }
    }
    for (const TokenId token : tokens) {
      auto row = std::make_unique<Row>();
      row->parent = lease.last;
      row->depth = lease.last->depth + 1;
      Row* next = row.get();
      lease.last->children.emplace(token, std::move(row));
      lease.last = next;
    }
    lease.num_rows += tokens.size();
    if (!EndsPage(lease.num_rows)) {
      lease.tail = Tail::kWritten;
      lease.last->writer = &lease;
    }
  }
  lease.last->leases.push_back(&lease);
  Settle();
}

void PageCacheOracle::Release(Lease& lease, size_t num_useful) {
  std::erase(lease.last->leases, &lease);
  if (lease.last->writer == &lease) lease.last->writer = nullptr;
  MarkPinned(lease.tree->root);
  clock_++;
  for (Row* row = lease.last; row != nullptr && !IsPinned(*row); row = row->parent) {
    row->last_used = clock_;
  }
  // What only it had, from the next page border on.
  cold_clock_--;
  const size_t border = PagesFor(num_useful) * kPageTokens;
  for (Row* row = lease.last; row->depth > border && !IsPinned(*row) &&
                              row->children.size() == (row == lease.last ? 0 : 1);
       row = row->parent) {
    row->last_used = cold_clock_;
    rare_.unneeded++;
  }
  leases_.remove_if([&](const auto& other) { return other.get() == &lease; });
  Settle();
}

void PageCacheOracle::Reset() {
  lookups_ = {};
  for (const auto& tree : trees_) {
    if (tree->scope && IsPinned(tree->root)) rare_.detached++;
    tree->scope.reset();
  }
  Settle();
}

// What holds after every step.
void PageCacheOracle::Settle() {
  for (const auto& tree : trees_) {
    MarkPinned(tree->root);
    if (!tree->scope) PruneUnpinned(tree->root);
    WarmTogether(tree->root);
  }
  trees_.remove_if(
      [](const auto& tree) { return tree->root.children.empty() && !IsPinned(tree->root); });
}

// --- Counts ---

size_t PageCacheOracle::num_committed() const {
  size_t pages = 0;
  for (const auto& tree : trees_) pages += PagesOf(tree->root, [](const Row&) { return true; });
  return pages;
}

size_t PageCacheOracle::num_pinned() const {
  size_t pages = 0;
  for (const auto& tree : trees_) pages += PagesOf(tree->root, IsPinned);
  return pages;
}

size_t PageCacheOracle::num_private() const {
  size_t pages = 0;
  for (const auto& lease : leases_) {
    const bool own_tail = EndsPage(lease->num_rows) || lease->tail == Tail::kPrivate;
    const size_t of_tree = own_tail ? lease->num_rows / kPageTokens : PagesFor(lease->num_rows);
    pages += PagesFor(lease->num_reserved) - of_tree;
  }
  return pages;
}

size_t PageCacheOracle::num_nodes() const {
  size_t nodes = 0;
  for (const auto& tree : trees_) {
    ForEachRow(tree->root, [&](const Row& row) {
      // A node ends where rows do not go on as one: there is no next row, or more than one, or a
      // lease ends, or what follows was used at another time.
      const bool goes_on =
          row.children.size() == 1 && row.leases.empty() &&
          (IsPinned(row) || row.last_used == row.children.begin()->second->last_used);
      if (!goes_on) nodes++;
    });
  }
  return nodes;
}

size_t PageCacheOracle::num_scopes() const {
  size_t scopes = 0;
  for (const auto& tree : trees_) scopes += tree->scope.has_value();
  return scopes;
}

}  // namespace trellis
