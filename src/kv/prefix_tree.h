// PrefixTree: a radix tree over token prefixes whose nodes own committed pages.
//
// A node is a run of rows of one path: rows [begin, end()), the tokens on its edge. Splits fall at
// any token; pages start at multiples of kPageTokens whatever the splits. One rule says whose a
// page is:
//
//   Every frame has one home. A page that is full belongs to the node that holds its last row. A
//   page that is not full belongs to the leaf in which it ends.
//
//     [ 0..40)  page 0              an inner node owns the pages that end in it, here only page 0
//        |-- [40..70)  page 1, 2    a leaf also owns the page that ends with it, here page 2
//        +-- [40..50)  page 1'      a branch inside a page has its own copy of the whole page
//
// So rows 32..39 of [0..40) are in page 1 as well as in page 1': an inner node reads its last,
// unfinished page through any child (TailFrame), and a child's frame is complete from the first row
// of its page. A split cuts a node's list of frames and a merge joins two: no frame is shared,
// nothing counts references. A tree of rows has as few frames as any tree of those rows can have:
//
//   frames = rows that end a page + leaves that end inside one
//
// Pins: a lease ends at the end of one node and pins the path to it. The pinned nodes are a tree
// themselves; what they need is that same formula over that tree (num_pinned_pages), and eviction
// can free everything else.
//
// Canonical form: apart from roots and nodes where a lease ends, a node has no children or at least
// two. Exception: an unpinned node may have one child that was used longer ago or is worth less, if
// the seam between them is a page border (they are evicted at different times). So there are never
// more than 3 * frames + leases nodes.
//
// THREADS: none of its own; see PageCache.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/types.h"
#include "kv/cold_nodes.h"
#include "kv/edge_table.h"
#include "kv/ghost_list.h"
#include "kv/page_key.h"
#include "kv/page_pool.h"
#include "kv/tree_view.h"

namespace trellis {

struct LeaseState;  // page_cache.cc; the tree only remembers which one writes behind a leaf

struct Node {
  bool is_root() const { return parent == nullptr; }
  bool is_leaf() const { return num_children == 0; }
  bool is_pinned() const { return num_leases + num_pinned_children > 0; }
  size_t end() const { return begin + label.size(); }
  // Index of the page of frames[0].
  size_t first_page() const { return begin / kPageTokens; }
  // Pages that end in this node: its own, leaf or not.
  size_t num_whole_pages() const { return end() / kPageTokens - first_page(); }
  // Whether the last row is not the last of its page.
  bool has_open_tail() const { return end() % kPageTokens != 0; }

  // First what matching reads, in one line of memory.
  Node* parent = nullptr;
  std::unique_ptr<Node> next_in_bucket;  // the EdgeTable's
  Node* first_child = nullptr;  // of those that are unpinned, the one used last; then the next one
  size_t num_children = 0;
  size_t begin = 0;            // row of label[0]
  std::vector<TokenId> label;  // empty in a root only

  Node* next_sibling = nullptr;
  Node* previous_sibling = nullptr;
  std::vector<FrameId> frames;  // of pages first_page() ..: whole pages, and a leaf's open tail
  std::vector<PageKey> keys;    // of the whole pages

  size_t num_leases = 0;  // that end at end()
  size_t num_pinned_children = 0;
  LeaseState* writer = nullptr;  // whoever may write behind end() in a leaf's tail frame

  int64_t last_used =
      0;  // when it was unpinned, on the tree's clock; below 0: not to be used again
  uint64_t num_uses = 0;  // leases that held its first row and are gone; 0 if no policy asks
  int32_t priority = std::numeric_limits<int32_t>::max();  // the smallest of theirs
  Node* colder = nullptr;                                  // these belong to ColdNodes
  Node* warmer = nullptr;
  size_t num_cold_pages = 0;
  uint8_t cold_class = 0;  // how much it is worth to the policy; never falls
  bool is_cold = false;
  size_t num_bytes = 0;  // as accounted in PrefixTree::num_bytes()
  uint64_t id = 0;       // of TreeView: stays with the row that the node ends with
};

// The empty prefix of one scope: row 0, no tokens.
struct Root : Node {
  bool is_detached() const { return scope == nullptr; }
  const std::string* scope = nullptr;  // null: no lookup finds this tree any more
  PageKey key;
};

class PrefixTree {
 public:
  // A position in the tree: `row` rows of the path to `node`, begin < row <= end(); a root and 0.
  struct Place {
    Node* node;
    size_t row;
  };

  // `pool` outlives the tree, which frees all its frames there.
  // Remembers the keys of the last `num_ghosts` pages that were evicted.
  PrefixTree(PagePool& pool, EvictionPolicyKind eviction, size_t num_ghosts);
  ~PrefixTree();
  PrefixTree(const PrefixTree&) = delete;
  PrefixTree& operator=(const PrefixTree&) = delete;

  // --- Roots: they stay while they have a child or a lease ---
  Root* FindRoot(const std::string& scope) const;
  Root& FindOrAddRoot(const std::string& scope);
  Root& AddDetachedRoot();
  // Drops all that is unpinned and detaches the rest.
  void Reset();

  // --- Reading ---
  // Follows `tokens` from the end of `node` as far as the tree goes. COST: that of comparing the
  // tokens, and one look-up per node.
  Place Match(Node& node, std::span<const TokenId> tokens) const;
  Node* FindChild(const Node& node, TokenId token) const;
  // Of the tokens [row, ..), in a prompt of which the tree has `row`, and `place` is where: how
  // many were there before they were evicted. To whole pages.
  size_t CountEvicted(const Place& place, std::span<const TokenId> tokens) const;
  // The frame that holds the rows of the page that `node` ends in. REQUIRES: has_open_tail().
  FrameId TailFrame(const Node& node) const;

  // --- Growing ---
  // Cuts `node` at `row`. Returns the new upper part, [begin, row); `node` is the lower one, so
  // what points to its end stays right. REQUIRES: begin < row < end().
  Node& Split(Node& node, size_t row);
  // Takes the open tail page of a leaf out of the tree: a private frame, and nobody writes it. The
  // leaf must be given a child or be extended at once.
  FrameId TakeTail(Node& leaf);
  // Rows `tokens` behind the end of `parent`. `frames`: private, all pages from the one that the
  // rows begin in, complete from its first row. REQUIRES: parent is pinned and has no such child,
  // and if it was a leaf, its open tail was taken.
  Node& AddChild(Node& parent, std::span<const TokenId> tokens, std::span<const FrameId> frames);
  // The same rows as more rows of `leaf`. REQUIRES: as AddChild; exactly one lease ends there.
  void Extend(Node& leaf, std::span<const TokenId> tokens, std::span<const FrameId> frames);

  // --- Pinning. COST: the nodes whose being pinned changes, and the labels of those that merge ---
  // May merge nodes above `node`.
  void AddLease(Node& node);
  // What becomes unpinned is the warmest of its class now, but for `node` itself, the coldest, if
  // its use is unlikely; or is dropped if nothing can find it any more. May remove nodes, the root
  // included. REQUIRES: `node` is in the tree of `root`, and a leaf if its use is unlikely.
  enum class Use { kLikely, kUnlikely };
  void RemoveLease(Root& root, Node& node, Use use = Use::kLikely);
  // The path to `node` has served a lease of that priority. COST: its nodes, or nothing if the
  // policy does not ask.
  void CountUse(Node& node, int32_t priority);

  // --- Evicting ---
  // Frees one frame: the last page of the leaf that the policy gives up. COST: O(classes), but for
  // nodes that end up empty or are merged. REQUIRES: num_pinned_pages() < the pool's
  // num_committed().
  void EvictPage();
  // Removes all that is below `node`. Returns how many frames that freed. REQUIRES: nothing pins
  // it.
  size_t DropBelow(Node& node);

  // --- Counts: O(1) ---
  size_t num_pinned_pages() const { return num_pinned_pages_; }
  size_t num_nodes() const { return edges_.size(); }  // without roots
  size_t num_scopes() const { return scopes_.size(); }
  size_t num_bytes() const { return num_bytes_; }
  size_t num_ghosts() const { return ghosts_.size(); }
  size_t num_ghost_bytes() const { return ghosts_.num_bytes(); }

  // --- Looking inside: tree_view.cc, prefix_tree_debug.cc ---
  // `lease_ends`: a node for each lease. See PageCache::View.
  TreeView View(const TreeViewOptions& options, std::span<const Node* const> lease_ends) const;
  // Aborts, naming it, if an invariant is broken, leases aside: PageCache knows those.
  void Validate() const;
  // One node a line.
  std::string Dump() const;
  // Roots included, detached or not; parents first.
  void ForEachNode(const std::function<void(const Node&)>& visit) const;

 private:
  std::vector<const Root*> Roots() const;
  static PageKey KeyBefore(const Node& node, size_t page);
  static void AppendKeys(Node& node);
  static void LinkChild(Node& parent, Node& child);
  static void UnlinkChild(Node& child);
  static void ReplaceChild(Node& child, Node& other);
  static void MoveToFront(Node& child);
  static void MoveToBack(Node& child);
  void AppendRows(Node& node, std::span<const TokenId> tokens, std::span<const FrameId> frames);
  Node& MergeWithChild(Node& node);
  static bool IsAsWarm(const Node& upper, const Node& lower);
  Node* JoinIfCanonical(Node& node);
  void MergeChanged();
  void Compact(Node& node);
  size_t RemoveLeaf(Node& leaf);
  size_t EvictLeaf(Node& leaf);
  size_t TrimLeaf(Node& leaf);
  void DropIfUnused(Root& root);
  void Account(Node& node);

  PagePool& pool_;
  EdgeTable<Node> edges_;
  std::unordered_map<std::string, std::unique_ptr<Root>> scopes_;
  std::unordered_map<const Root*, std::unique_ptr<Root>> detached_;
  ColdNodes<Node> cold_;
  GhostList ghosts_;
  // Count releases: up of what may be used again, and down of what is not.
  int64_t clock_ = 0, cold_clock_ = 0;
  uint64_t last_id_ = 0;
  size_t num_pinned_pages_ = 0;
  size_t num_bytes_ = 0;
  std::vector<Node*> changed_;  // scratch of AddLease and RemoveLease: deepest first
};

}  // namespace trellis
