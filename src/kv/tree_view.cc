// PrefixTree::View: the warmest nodes of the tree, at a cost that does not grow with it.
//
// From the roots down, always the warmest node whose parent was taken already. Siblings that are
// unpinned are in the order of their last use, so that the next one need be looked at only when one
// has been taken; those that are pinned can be anywhere among them, and are found from the leases.
#include "kv/tree_view.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <unordered_map>

#include "base/check.h"
#include "kv/prefix_tree.h"

namespace trellis {
namespace {

struct Pins {
  size_t num_leases = 0;
  std::vector<const Node*> children;  // pinned ones
};
using PinMap = std::unordered_map<const Node*, Pins>;

// Of the nodes on the paths of the leases.
PinMap FindPins(std::span<const Node* const> lease_ends) {
  PinMap pins;
  for (const Node* end : lease_ends) {
    for (const Node* node = end; node != nullptr; node = node->parent) {
      if (pins[node].num_leases++ == 0 && !node->is_root()) {
        pins[node->parent].children.push_back(node);
      }
    }
  }
  return pins;
}

const Node* SkipPinned(const Node* sibling) {
  while (sibling != nullptr && sibling->is_pinned()) sibling = sibling->next_sibling;
  return sibling;
}

class Viewer {
 public:
  Viewer(const TreeViewOptions& options, int64_t now, const PinMap& pins, TreeView* view)
      : options_(options), now_(now), pins_(pins), view_(*view) {}

  void AddRoot(const Node& root) { Add(&root, 0, 0); }
  void Run() {
    while (!candidates_.empty() && view_.nodes.size() < options_.max_nodes) {
      const Candidate candidate = candidates_.top();
      candidates_.pop();
      Take(candidate);
    }
  }

 private:
  struct Candidate {
    const Node* node;
    size_t depth;
    size_t parent;  // its index in the view; of a root nothing
    int64_t warmth;
    // The last one is taken first.
    bool operator<(const Candidate& other) const {
      if (warmth != other.warmth) return warmth < other.warmth;
      const size_t size = node->label.size(), other_size = other.node->label.size();
      if (size != other_size) return size < other_size;
      return node->id > other.node->id;
    }
  };

  // When it was used last.
  int64_t Warmth(const Node& node) const {
    constexpr int64_t kNow = std::numeric_limits<int64_t>::max();
    if (node.is_pinned() || node.id == view_.readable_scope) return kNow;
    return node.is_root() ? node.first_child->last_used : node.last_used;
  }

  void Add(const Node* node, size_t depth, size_t parent) {
    if (node != nullptr) candidates_.push({node, depth, parent, Warmth(*node)});
  }

  void Take(const Candidate& candidate) {
    const Node& node = *candidate.node;
    const size_t index = view_.nodes.size();
    view_.nodes.push_back(Describe(candidate));
    if (!node.is_root()) {
      view_.nodes[candidate.parent].num_hidden--;
      if (!node.is_pinned()) {
        Add(SkipPinned(node.next_sibling), candidate.depth, candidate.parent);
      }
    }
    if (candidate.depth == options_.max_depth) return;
    if (const auto pins = pins_.find(&node); pins != pins_.end()) {
      for (const Node* child : pins->second.children) Add(child, candidate.depth + 1, index);
    }
    Add(SkipPinned(node.first_child), candidate.depth + 1, index);
  }

  TreeView::Node Describe(const Candidate& candidate) const {
    const Node& node = *candidate.node;
    TreeView::Node shown;
    shown.id = shown.scope = node.id;
    if (!node.is_root()) {
      shown.parent = view_.nodes[candidate.parent].id;
      shown.scope = view_.nodes[candidate.parent].scope;
    }
    shown.begin = node.begin;
    shown.num_tokens = node.label.size();
    shown.num_pages = node.frames.size();
    if (const auto pins = pins_.find(&node); pins != pins_.end()) {
      shown.num_leases = pins->second.num_leases;
    } else {
      shown.age = static_cast<uint64_t>(
          now_ - (node.is_root() ? node.first_child->last_used : node.last_used));
    }
    shown.num_children = shown.num_hidden = node.num_children;
    if (shown.scope == view_.readable_scope) {
      const size_t num_tokens = std::min(TreeView::kShownTokens, node.label.size());
      shown.tokens.assign(node.label.begin(),
                          node.label.begin() + static_cast<ptrdiff_t>(num_tokens));
    }
    return shown;
  }

  const TreeViewOptions& options_;
  const int64_t now_;
  const PinMap& pins_;
  TreeView& view_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

TreeView PrefixTree::View(const TreeViewOptions& options,
                          std::span<const Node* const> lease_ends) const {
  TRELLIS_CHECK(options.max_nodes > 0);
  TreeView view;
  view.num_nodes = edges_.size() + scopes_.size() + detached_.size();
  const Root* readable = options.readable_scope ? FindRoot(*options.readable_scope) : nullptr;
  if (readable != nullptr) view.readable_scope = readable->id;

  const PinMap pins = FindPins(lease_ends);
  Viewer viewer(options, clock_, pins, &view);
  if (readable != nullptr) viewer.AddRoot(*readable);
  if (options.scopes == TreeViewOptions::Scopes::kReadable) {
    viewer.Run();
    return view;
  }
  for (const auto& [node, pinned] : pins) {
    if (node->is_root() && node != readable) viewer.AddRoot(*node);
  }
  size_t num_others = 0;
  for (auto it = scopes_.begin(); it != scopes_.end() && num_others < options.max_nodes; ++it) {
    const Root* root = it->second.get();
    if (root == readable || root->is_pinned()) continue;
    viewer.AddRoot(*root);
    num_others++;
  }
  viewer.Run();
  return view;
}

}  // namespace trellis
