// What looks into a PrefixTree without changing it: Validate() and Dump().
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <unordered_set>

#include "kv/prefix_tree.h"

namespace trellis {
namespace {

std::string Describe(const Node& node) {
  return node.is_root() ? "a root" : fmt::format("node [{}, {})", node.begin, node.end());
}

void Expect(bool holds, const Node& node, const char* invariant) {
  if (holds) return;
  fmt::print(stderr, "PrefixTree: broken invariant at {}: {}\n", Describe(node), invariant);
  std::fflush(stderr);
  std::abort();
}

std::vector<const Node*> Children(const Node& node) {
  std::vector<const Node*> children;
  for (const Node* child = node.first_child; child != nullptr; child = child->next_sibling) {
    children.push_back(child);
  }
  std::sort(children.begin(), children.end(),
            [](const Node* a, const Node* b) { return a->label.front() < b->label.front(); });
  return children;
}

// What a walk over all nodes finds, to compare with the tree's running counts.
struct Found {
  std::unordered_set<FrameId> frames;
  size_t num_nodes = 0;
  size_t num_cold = 0;
  size_t num_bytes = 0;
  size_t num_pinned_pages = 0;
};

void CheckPages(const Node& node, const PagePool& pool, Found& found) {
  const size_t own = node.is_leaf() ? PagesFor(node.end()) - node.first_page()  //
                                    : node.num_whole_pages();
  Expect(node.frames.size() == own, node, "it owns the pages that end in it, and a leaf its tail");
  Expect(node.keys.size() == node.num_whole_pages(), node, "its whole pages have keys");
  for (FrameId frame : node.frames) {
    Expect(pool.state(frame) == PagePool::FrameState::kCommitted, node, "its frames are committed");
    Expect(found.frames.insert(frame).second, node, "a frame has one home");
  }
}

void CheckLinks(const Node& node) {
  size_t num_children = 0;
  const Node *previous = nullptr, *warmer = nullptr;
  for (const Node* child = node.first_child; child != nullptr; child = child->next_sibling) {
    Expect(child->parent == &node && child->previous_sibling == previous, *child,
           "it is linked with its parent and siblings");
    previous = child;
    if (!child->is_pinned()) {
      Expect(warmer == nullptr || child->last_used <= warmer->last_used, *child,
             "of unpinned siblings the one used last comes first");
      warmer = child;
    }
    num_children++;
  }
  Expect(node.num_children == num_children, node, "it counts its children");
}

void CheckPins(const Node& node, Found& found) {
  size_t num_pinned_children = 0;
  for (const Node* child = node.first_child; child != nullptr; child = child->next_sibling) {
    num_pinned_children += child->is_pinned();
  }
  Expect(node.num_pinned_children == num_pinned_children, node, "it counts its pinned children");
  if (node.writer != nullptr) {
    Expect(node.is_leaf() && node.has_open_tail() && node.num_leases > 0, node,
           "who writes behind it holds it, and nothing is there yet");
  }
  if (!node.is_pinned()) return;
  found.num_pinned_pages += node.num_whole_pages();
  if (num_pinned_children == 0 && node.has_open_tail()) found.num_pinned_pages++;
}

void CheckCanonical(const Node& node) {
  if (node.is_root() || node.num_leases > 0 || node.num_children != 1) return;
  const Node& child = *node.first_child;
  Expect(!node.is_pinned() && !node.has_open_tail() &&
             (node.last_used != child.last_used || node.cold_class != child.cold_class),
         node, "an only child is merged, unless it is colder and begins a page");
}

void CheckNode(const Node& node, const PagePool& pool, Found& found) {
  found.num_bytes += node.num_bytes;
  CheckLinks(node);
  CheckPages(node, pool, found);
  CheckPins(node, found);
  CheckCanonical(node);
  if (node.is_root()) {
    Expect(node.label.empty() && node.begin == 0, node, "it is the empty prefix");
  } else {
    found.num_nodes++;
    found.num_cold += !node.is_pinned();
    Expect(!node.label.empty() && node.begin == node.parent->end(), node,
           "it begins where its parent ends and is not empty");
    Expect(node.is_pinned() || node.parent->is_pinned() || node.parent->is_root() ||
               (node.last_used <= node.parent->last_used &&
                node.cold_class <= node.parent->cold_class),
           node, "it is no warmer than its parent");
    Expect(node.is_cold == !node.is_pinned(), node,
           "what is unpinned can be evicted, nothing else");
  }
}

void DumpNode(const Node& node, size_t depth, std::string& out) {
  constexpr size_t kShown = 8;
  if (!node.is_root()) {
    out += fmt::format("{:{}}[{}, {})", "", 2 * depth, node.begin, node.end());
    for (size_t i = 0; i < std::min(kShown, node.label.size()); i++) {
      out += fmt::format(" {}", node.label[i]);
    }
    if (node.label.size() > kShown) out += " ..";
    if (!node.frames.empty()) {
      out += fmt::format("  pages {}..{}", node.first_page(),
                         node.first_page() + node.frames.size() - 1);
    }
  }
  if (node.num_leases > 0) out += fmt::format("  leases {}", node.num_leases);
  if (node.writer != nullptr) out += "  written";
  if (!node.is_pinned() && !node.is_root()) out += fmt::format("  used {}", node.last_used);
  out += '\n';
  for (const Node* child : Children(node)) DumpNode(*child, depth + 1, out);
}

std::string Printable(const std::string& scope) {
  std::string text;
  for (const char c : scope) {
    const auto byte = static_cast<unsigned char>(c);
    text += byte < 0x20 || byte >= 0x7f || c == '"' || c == '\\' ? fmt::format("\\x{:02x}", byte)
                                                                 : std::string(1, c);
  }
  return text;
}

}  // namespace

std::vector<const Root*> PrefixTree::Roots() const {
  std::vector<const Root*> roots;
  for (const auto& [scope, root] : scopes_) roots.push_back(root.get());
  for (const auto& [key, root] : detached_) roots.push_back(root.get());
  return roots;
}

void PrefixTree::ForEachNode(const std::function<void(const Node&)>& visit) const {
  std::vector<const Node*> to_visit;
  for (const Root* root : Roots()) to_visit.push_back(root);
  while (!to_visit.empty()) {
    const Node& node = *to_visit.back();
    to_visit.pop_back();
    visit(node);
    for (const Node* child = node.first_child; child != nullptr; child = child->next_sibling) {
      to_visit.push_back(child);
    }
  }
}

void PrefixTree::Validate() const {
  Found found;
  for (const Root* root : Roots()) {
    Expect(root->is_pinned() || !root->is_leaf(), *root, "it has a child or a lease");
    Expect(!root->is_detached() || root->is_pinned(), *root, "detached, it has a lease");
  }
  ForEachNode([&](const Node& node) {
    CheckNode(node, pool_, found);
    Expect(node.is_root() || FindChild(*node.parent, node.label.front()) == &node, node,
           "its parent finds it by its first token");
  });
  const Root nowhere;
  size_t num_cold = 0;
  for (size_t i = 0; i < cold_.policy().num_classes(); i++) {
    std::unordered_set<const Node*> seen;
    size_t num_pages = 0;
    for (const Node* node = cold_.coldest(i); node != nullptr; node = node->warmer) {
      num_cold++;
      num_pages += node->frames.size();
      seen.insert(node);
      Expect(node->is_cold && node->cold_class == i, *node, "it is in the list of its class");
      Expect(!seen.contains(node->parent), *node, "a child is evicted before its parent");
      Expect(node->warmer == nullptr || node->last_used <= node->warmer->last_used, *node,
             "what was used longest ago is evicted first");
    }
    Expect(num_pages == cold_.num_pages(i), nowhere, "a class counts its pages");
  }
  Expect(num_cold == found.num_cold, nowhere, "all that is unpinned can be evicted");
  Expect(found.num_nodes == edges_.size(), nowhere, "num_nodes() counts the nodes");
  Expect(found.num_bytes == num_bytes_, nowhere, "num_bytes() counts the bytes");
  Expect(found.num_pinned_pages == num_pinned_pages_, nowhere, "num_pinned_pages() is exact");
  Expect(found.frames.size() == pool_.num_committed(), nowhere,
         "the committed frames are those of the nodes");
}

std::string PrefixTree::Dump() const {
  std::string out;
  for (const Root* root : Roots()) {
    out += root->is_detached() ? "detached" : fmt::format("scope \"{}\"", Printable(*root->scope));
    DumpNode(*root, 0, out);
  }
  return out;
}

}  // namespace trellis
