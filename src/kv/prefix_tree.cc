#include "kv/prefix_tree.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/common_prefix.h"

namespace trellis {
namespace {

size_t OpenTails(const Node& node) {
  return node.has_open_tail() ? 1 : 0;
}

// Pinned, and none of its children is: a leaf of the tree of pinned nodes.
bool IsTip(const Node& node) {
  return node.num_leases > 0 && node.num_pinned_children == 0;
}

// While the label of `node` is compared: where the path goes on, if it goes where the last one
// went, and what pinning is going to write.
void Prefetch(const Node& node) {
  __builtin_prefetch(node.first_child);
  constexpr size_t kLine = 64;
  for (size_t i = kLine; i < sizeof(Node); i += kLine)
    __builtin_prefetch(reinterpret_cast<const std::byte*>(&node) + i, 1);
}

// Shrinks what is mostly empty; since sizes halve in between, at a constant cost per element.
template <typename T>
void GiveBackSpace(std::vector<T>& items) {
  if (items.capacity() > 2 * items.size() + 16) items.shrink_to_fit();
}

}  // namespace

PrefixTree::PrefixTree(PagePool& pool, EvictionPolicyKind eviction, size_t num_ghosts)
    : pool_(pool), cold_(eviction), ghosts_(num_ghosts) {}

PrefixTree::~PrefixTree() {
  edges_.ForEach([&](const Node& node) {
    for (FrameId frame : node.frames) pool_.Free(frame);
  });
}

// --- Roots ---

Root* PrefixTree::FindRoot(const std::string& scope) const {
  const auto it = scopes_.find(scope);
  return it == scopes_.end() ? nullptr : it->second.get();
}

Root& PrefixTree::FindOrAddRoot(const std::string& scope) {
  const auto [it, added] = scopes_.try_emplace(scope);
  if (added) {
    it->second = std::make_unique<Root>();
    it->second->scope = &it->first;
    it->second->id = ++last_id_;
    it->second->key = KeyOfScope(scope);
    Account(*it->second);
  }
  return *it->second;
}

Root& PrefixTree::AddDetachedRoot() {
  auto root = std::make_unique<Root>();
  Root& result = *root;
  result.id = ++last_id_;
  detached_.emplace(&result, std::move(root));
  Account(result);
  return result;
}

void PrefixTree::Reset() {
  // Detached trees drop what is unpinned at once, so all that is cold is in a scope.
  while (Node* leaf = cold_.Victim(clock_)) RemoveLeaf(*leaf);
  for (auto& [scope, root] : scopes_) {
    root->scope = nullptr;
    num_bytes_ -= scope.capacity();
    root->num_bytes -= scope.capacity();
    Root& kept = *root;
    detached_.emplace(&kept, std::move(root));
    DropIfUnused(kept);
  }
  scopes_.clear();
  ghosts_.Clear();
}

void PrefixTree::DropIfUnused(Root& root) {
  if (!root.is_leaf() || root.is_pinned()) return;
  num_bytes_ -= root.num_bytes;
  if (root.is_detached()) {
    detached_.erase(&root);
  } else {
    scopes_.erase(scopes_.find(*root.scope));
  }
}

// --- Reading ---

PrefixTree::Place PrefixTree::Match(Node& node, std::span<const TokenId> tokens) const {
  Place place{&node, node.end()};
  while (!tokens.empty() && place.row == place.node->end()) {
    Node* child = FindChild(*place.node, tokens.front());
    if (child == nullptr) break;
    Prefetch(*child);
    const size_t same = CommonPrefix(child->label, tokens);
    place = {child, place.row + same};
    tokens = tokens.subspan(same);
  }
  return place;
}

Node* PrefixTree::FindChild(const Node& node, TokenId token) const {
  if (node.is_leaf()) return nullptr;
  // Where the last one went: one line of memory to wait for, and no bucket.
  if (node.first_child->label.front() == token) return node.first_child;
  return node.num_children == 1 ? nullptr : edges_.Find(node, token);
}

// Of the page before `page` on the path to `node`, which begins in `node` or above.
PageKey PrefixTree::KeyBefore(const Node& node, size_t page) {
  const Node* home = &node;
  while (!home->is_root() && page * kPageTokens <= home->begin) home = home->parent;
  return home->is_root() ? static_cast<const Root*>(home)->key
                         : home->keys[page - 1 - home->first_page()];
}

size_t PrefixTree::CountEvicted(const Place& place, std::span<const TokenId> tokens) const {
  size_t page = place.row / kPageTokens;
  PageKey key = KeyBefore(*place.node, page);
  while ((page + 1) * kPageTokens <= tokens.size()) {
    key = KeyOfPage(key, tokens.subspan(page * kPageTokens, kPageTokens));
    if (!ghosts_.Contains(key)) break;
    page++;
  }
  return std::max(page * kPageTokens, place.row) - place.row;
}

FrameId PrefixTree::TailFrame(const Node& node) const {
  TRELLIS_CHECK(node.has_open_tail());
  const size_t page = node.end() / kPageTokens;
  const Node* home = &node;
  while (page >= home->first_page() + home->frames.size()) {
    home = home->first_child;
    TRELLIS_CHECK(home != nullptr && home->first_page() == page);
  }
  return home->frames[page - home->first_page()];
}

// --- Growing ---

//        parent                    parent
//           |                         |
//   [begin ...... end)       [begin .. row)   upper: new, whole pages up to `row`
//    /      |       \                 |
//                              [row .. end)   node: the rest, with its children, leases, writer
//                               /    |    \                                                    .
Node& PrefixTree::Split(Node& node, size_t row) {
  TRELLIS_CHECK(node.begin < row && row < node.end());
  const auto cut_tokens = node.label.begin() + static_cast<ptrdiff_t>(row - node.begin);
  const auto cut_frames =
      node.frames.begin() + static_cast<ptrdiff_t>(row / kPageTokens - node.first_page());

  std::unique_ptr<Node> lower = edges_.Take(node);
  auto owned = std::make_unique<Node>();
  Node& upper = *owned;
  upper.id = ++last_id_;
  upper.begin = node.begin;
  upper.label.assign(node.label.begin(), cut_tokens);
  upper.frames.assign(node.frames.begin(), cut_frames);
  const auto cut_keys = node.keys.begin() + (cut_frames - node.frames.begin());
  upper.keys.assign(node.keys.begin(), cut_keys);
  upper.last_used = node.last_used;
  upper.num_uses = node.num_uses;
  upper.priority = node.priority;
  upper.cold_class = node.cold_class;
  upper.num_pinned_children = node.is_pinned() ? 1 : 0;
  if (!node.is_pinned()) cold_.InsertWarmer(upper, node);

  ReplaceChild(node, upper);
  LinkChild(upper, node);
  edges_.Insert(std::move(owned));
  node.begin = row;
  node.label.erase(node.label.begin(), cut_tokens);
  node.frames.erase(node.frames.begin(), cut_frames);
  node.keys.erase(node.keys.begin(), cut_keys);
  GiveBackSpace(node.label);
  GiveBackSpace(node.frames);
  GiveBackSpace(node.keys);
  edges_.Insert(std::move(lower));
  Account(upper);
  Account(node);
  return upper;
}

FrameId PrefixTree::TakeTail(Node& leaf) {
  TRELLIS_CHECK(leaf.is_leaf() && leaf.has_open_tail());
  const FrameId frame = leaf.frames.back();
  leaf.frames.pop_back();
  leaf.writer = nullptr;
  pool_.Withdraw(frame);
  return frame;
}

Node& PrefixTree::AddChild(Node& parent, std::span<const TokenId> tokens,
                           std::span<const FrameId> frames) {
  TRELLIS_CHECK(!tokens.empty() && parent.is_pinned());
  TRELLIS_CHECK(FindChild(parent, tokens.front()) == nullptr);
  auto owned = std::make_unique<Node>();
  Node& child = *owned;
  child.id = ++last_id_;
  child.begin = parent.end();
  child.last_used = clock_;
  LinkChild(parent, child);
  AppendRows(child, tokens, frames);
  edges_.Insert(std::move(owned));
  cold_.Append(child);
  return child;
}

void PrefixTree::Extend(Node& leaf, std::span<const TokenId> tokens,
                        std::span<const FrameId> frames) {
  TRELLIS_CHECK(leaf.is_leaf() && !leaf.is_root() && leaf.num_leases == 1);
  num_pinned_pages_ -= leaf.num_whole_pages() + OpenTails(leaf);
  AppendRows(leaf, tokens, frames);
  num_pinned_pages_ += leaf.num_whole_pages() + OpenTails(leaf);
}

void PrefixTree::AppendRows(Node& node, std::span<const TokenId> tokens,
                            std::span<const FrameId> frames) {
  node.label.insert(node.label.end(), tokens.begin(), tokens.end());
  node.frames.insert(node.frames.end(), frames.begin(), frames.end());
  TRELLIS_CHECK(node.frames.size() == PagesFor(node.end()) - node.first_page());
  for (FrameId frame : frames) pool_.Commit(frame);
  AppendKeys(node);
  Account(node);
}

// Of the whole pages that have none.
void PrefixTree::AppendKeys(Node& node) {
  while (node.keys.size() < node.num_whole_pages()) {
    const size_t page = node.first_page() + node.keys.size();
    TokenId tokens[kPageTokens];
    const Node* home = &node;
    for (size_t row = (page + 1) * kPageTokens; row-- > page * kPageTokens;) {
      while (row < home->begin) home = home->parent;
      tokens[row % kPageTokens] = home->label[row - home->begin];
    }
    const PageKey before = node.keys.empty() ? KeyBefore(node, page) : node.keys.back();
    node.keys.push_back(KeyOfPage(before, tokens));
  }
}

// --- Pinning ---

void PrefixTree::AddLease(Node& node) {
  const bool was_pinned = node.is_pinned();
  node.num_leases++;
  if (was_pinned) return;
  num_pinned_pages_ += OpenTails(node);
  changed_.clear();
  for (Node* next = &node; !next->is_root(); next = next->parent) {
    cold_.Remove(*next);
    num_pinned_pages_ += next->num_whole_pages();
    changed_.push_back(next);
    Node& parent = *next->parent;
    if (IsTip(parent)) num_pinned_pages_ -= OpenTails(parent);
    const bool parent_was_pinned = parent.is_pinned();
    parent.num_pinned_children++;
    if (parent_was_pinned) break;
  }
  MergeChanged();  // what was colder than its parent is no longer
}

void PrefixTree::RemoveLease(Root& root, Node& node, Use use) {
  TRELLIS_CHECK(node.num_leases > 0);
  node.num_leases--;
  if (node.is_pinned()) return Compact(node);

  num_pinned_pages_ -= OpenTails(node);
  clock_++;
  changed_.clear();
  uint8_t cold_class = 0;
  Node* next = &node;
  for (; !next->is_root() && !next->is_pinned(); next = next->parent) {
    const bool is_coldest = next == &node && use == Use::kUnlikely;
    next->last_used = is_coldest ? --cold_clock_ : clock_;
    // No lower than those below.
    const size_t own = cold_.policy().ClassOf(
        {.uses = next->num_uses, .end = next->end(), .priority = next->priority});
    cold_class = std::max({cold_class, next->cold_class, static_cast<uint8_t>(own)});
    next->cold_class = cold_class;
    is_coldest ? cold_.Prepend(*next) : cold_.Append(*next);
    num_pinned_pages_ -= next->num_whole_pages();
    changed_.push_back(next);
    next->parent->num_pinned_children--;
    if (IsTip(*next->parent)) num_pinned_pages_ += OpenTails(*next->parent);
    is_coldest ? MoveToBack(*next) : MoveToFront(*next);
  }
  next->cold_class = std::max(next->cold_class, cold_class);  // and when it is unpinned itself
  if (root.is_detached()) {
    for (Node* unpinned : changed_) RemoveLeaf(*unpinned);
  } else if (!changed_.empty()) {
    MergeChanged();
    Compact(node);
  }
  DropIfUnused(root);
}

void PrefixTree::CountUse(Node& node, int32_t priority) {
  if (cold_.policy().num_classes() == 1) return;  // nobody asks
  for (Node* next = &node; !next->is_root(); next = next->parent) {
    next->num_uses++;
    next->priority = std::min(next->priority, priority);
  }
}

// --- Canonical form ---

// Of what is unpinned: a list of one class is in the order of last use, so that nodes that are
// alike in both go one right after the other, and are one.
bool PrefixTree::IsAsWarm(const Node& upper, const Node& lower) {
  return upper.is_pinned() ||
         (upper.last_used == lower.last_used && upper.cold_class == lower.cold_class);
}

// Joins `node` and its only child, or as much of the child as has to be as warm. Returns the joined
// node; null if they may stay two.
Node* PrefixTree::JoinIfCanonical(Node& node) {
  if (node.is_root() || node.num_leases > 0 || node.num_children != 1) return nullptr;
  Node& lower = *node.first_child;
  if (!IsAsWarm(node, lower)) {
    // They part at a page border only: the rows that share a page can only go together, so they
    // are as warm as the warmest of them.
    if (!node.has_open_tail()) return nullptr;
    const size_t page_end = PagesFor(node.end()) * kPageTokens;
    if (lower.end() > page_end) Split(lower, page_end);
  }
  return &MergeWithChild(node);
}

// Restores it within changed_, a path that was pinned or unpinned at once. Its deepest node stays.
void PrefixTree::MergeChanged() {
  // From the top, so that a long chain is joined at the cost of its length.
  for (size_t i = changed_.size(); i-- > 1;) JoinIfCanonical(*changed_[i]);
}

// Restores it at `node`, which may go.
void PrefixTree::Compact(Node& node) {
  Node* upper = &node;
  while (upper != nullptr) upper = JoinIfCanonical(*upper);
}

// Joins `node` and its only child into one node as warm as `node`. Returns it: it is the child, so
// what points to its end stays right. REQUIRES: both are pinned or neither is; no lease ends at
// `node`. COST: the child's label.
Node& PrefixTree::MergeWithChild(Node& node) {
  Node& child = *node.first_child;
  TRELLIS_CHECK(node.num_leases == 0 && node.num_children == 1);
  TRELLIS_CHECK(node.is_pinned() == child.is_pinned());
  if (!node.is_pinned()) {
    cold_.Remove(child);
    cold_.InsertWarmer(child, node);
    cold_.Remove(node);
    child.last_used = node.last_used;
  }
  child.num_uses = node.num_uses;
  child.priority = node.priority;
  child.cold_class = std::max(child.cold_class, node.cold_class);
  std::unique_ptr<Node> owned = edges_.Take(child);
  const std::unique_ptr<Node> merged = edges_.Take(node);
  node.label.insert(node.label.end(), child.label.begin(), child.label.end());
  node.frames.insert(node.frames.end(), child.frames.begin(), child.frames.end());
  node.keys.insert(node.keys.end(), child.keys.begin(), child.keys.end());
  child.label = std::move(node.label);
  child.frames = std::move(node.frames);
  child.keys = std::move(node.keys);
  child.begin = node.begin;

  UnlinkChild(child);
  ReplaceChild(node, child);
  num_bytes_ -= node.num_bytes;
  edges_.Insert(std::move(owned));
  Account(child);
  return child;
}

// --- Evicting ---

void PrefixTree::EvictPage() {
  size_t num_freed = 0;
  // Rows whose page another node keeps free nothing; there are at most a page's worth.
  while (num_freed == 0) {
    Node* leaf = cold_.Victim(clock_);
    TRELLIS_CHECK(leaf != nullptr && leaf->is_leaf());
    num_freed = TrimLeaf(*leaf);
  }
}

// Removes the rows of the last page of an unpinned leaf. Returns how many frames that freed: 0
// or 1.
size_t PrefixTree::TrimLeaf(Node& leaf) {
  const size_t page_begin = (leaf.end() - 1) / kPageTokens * kPageTokens;
  if (page_begin <= leaf.begin) {
    Root* root = leaf.parent->is_root() ? static_cast<Root*>(leaf.parent) : nullptr;
    const size_t num_freed = EvictLeaf(leaf);
    if (root != nullptr) DropIfUnused(*root);
    return num_freed;
  }
  pool_.Free(leaf.frames.back());
  leaf.frames.pop_back();
  if (!leaf.has_open_tail()) {
    ghosts_.Add(leaf.keys.back());
    leaf.keys.pop_back();
  }
  leaf.label.resize(page_begin - leaf.begin);
  GiveBackSpace(leaf.label);
  GiveBackSpace(leaf.frames);
  GiveBackSpace(leaf.keys);
  Account(leaf);
  return 1;
}

// As RemoveLeaf, but remembers what was there.
size_t PrefixTree::EvictLeaf(Node& leaf) {
  for (const PageKey& key : leaf.keys) ghosts_.Add(key);
  return RemoveLeaf(leaf);
}

// Removes an unpinned leaf and restores canonical form at its parent, which may go unless it is a
// root. Returns how many frames that freed.
size_t PrefixTree::RemoveLeaf(Node& leaf) {
  TRELLIS_CHECK(leaf.is_leaf() && !leaf.is_pinned() && leaf.writer == nullptr);
  Node& parent = *leaf.parent;
  size_t first_freed = 0;
  if (parent.has_open_tail() && parent.num_children == 1) {
    // The parent becomes a leaf: its last page is its own now.
    parent.frames.push_back(leaf.frames.front());
    first_freed = 1;
    Account(parent);
  }
  const size_t num_freed = leaf.frames.size() - first_freed;
  for (size_t i = first_freed; i < leaf.frames.size(); i++) pool_.Free(leaf.frames[i]);
  cold_.Remove(leaf);
  UnlinkChild(leaf);
  num_bytes_ -= leaf.num_bytes;
  edges_.Take(leaf);
  Compact(parent);
  return num_freed;
}

size_t PrefixTree::DropBelow(Node& node) {
  TRELLIS_CHECK(node.num_pinned_children == 0);
  size_t num_freed = 0;
  while (Node* leaf = node.first_child) {
    while (leaf->first_child != nullptr) leaf = leaf->first_child;
    num_freed += EvictLeaf(*leaf);
  }
  return num_freed;
}

// --- Links and accounts ---

void PrefixTree::LinkChild(Node& parent, Node& child) {
  child.parent = &parent;
  child.previous_sibling = nullptr;
  child.next_sibling = parent.first_child;
  if (parent.first_child != nullptr) parent.first_child->previous_sibling = &child;
  parent.first_child = &child;
  parent.num_children++;
}

// Among its siblings.
void PrefixTree::MoveToFront(Node& child) {
  Node& parent = *child.parent;
  if (parent.first_child == &child) return;
  UnlinkChild(child);
  LinkChild(parent, child);
}

void PrefixTree::MoveToBack(Node& child) {
  if (child.next_sibling == nullptr) return;
  Node& parent = *child.parent;
  UnlinkChild(child);
  Node* last = parent.first_child;
  while (last->next_sibling != nullptr) last = last->next_sibling;
  last->next_sibling = &child;
  child.previous_sibling = last;
  parent.num_children++;
}

// Leaves child.parent as it is.
void PrefixTree::UnlinkChild(Node& child) {
  Node& parent = *child.parent;
  (child.previous_sibling != nullptr ? child.previous_sibling->next_sibling : parent.first_child) =
      child.next_sibling;
  if (child.next_sibling != nullptr) child.next_sibling->previous_sibling = child.previous_sibling;
  child.previous_sibling = child.next_sibling = nullptr;
  parent.num_children--;
}

// Puts `other` into the place of `child` among its siblings.
void PrefixTree::ReplaceChild(Node& child, Node& other) {
  other.parent = child.parent;
  other.previous_sibling = std::exchange(child.previous_sibling, nullptr);
  other.next_sibling = std::exchange(child.next_sibling, nullptr);
  (other.previous_sibling != nullptr ? other.previous_sibling->next_sibling
                                     : other.parent->first_child) = &other;
  if (other.next_sibling != nullptr) other.next_sibling->previous_sibling = &other;
}

// Brings num_bytes() and the pages of its class up to date with `node`.
void PrefixTree::Account(Node& node) {
  size_t size = node.label.capacity() * sizeof(TokenId) + node.frames.capacity() * sizeof(FrameId) +
                node.keys.capacity() * sizeof(PageKey);
  if (node.is_root()) {
    // The table's entry, a pointer and a hash, beside the root itself.
    const std::string* scope = static_cast<const Root&>(node).scope;
    size += sizeof(Root) + 4 * sizeof(void*) + (scope == nullptr ? 0 : scope->capacity());
  } else {
    size += sizeof(Node) + 2 * sizeof(void*);  // and its part of the table of edges
  }
  num_bytes_ += size - node.num_bytes;
  node.num_bytes = size;
  cold_.CountPages(node);
}

}  // namespace trellis
