// TreeView: what the tree holds, as plain data, for people and programs that look into it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/types.h"

namespace trellis {

struct TreeViewOptions {
  size_t max_nodes = 200;                                 // at least 1
  size_t max_depth = std::numeric_limits<size_t>::max();  // edges below a scope; 0: scopes alone
  // The scope whose tokens are shown, and which is looked at first. Of all others there are counts.
  std::optional<std::string> readable_scope = {};
  enum class Scopes { kAll, kReadable } scopes = Scopes::kAll;  // of which there are nodes
};

// As of one moment. Ids say nothing of what a node holds, and are not given out twice.
struct TreeView {
  struct Node {
    uint64_t id = 0;
    uint64_t parent = 0;  // 0: it is the root of a scope, which holds no tokens
    uint64_t scope = 0;   // the id of its root
    size_t begin = 0;     // tokens above it
    size_t num_tokens = 0;
    size_t num_pages = 0;   // that are its own: see kv/prefix_tree.h
    size_t num_leases = 0;  // that end in it or below, and so pin it
    // Releases of other paths since it was released; 0 while it is pinned.
    uint64_t age = 0;
    size_t num_children = 0;
    size_t num_hidden = 0;        // of these, not shown: beyond max_depth or max_nodes
    std::vector<TokenId> tokens;  // the first, up to kShownTokens; of the readable scope only
  };
  static constexpr size_t kShownTokens = 32;

  std::vector<Node> nodes;      // parents before their children
  uint64_t readable_scope = 0;  // its id; 0: nothing is cached for it
  size_t num_nodes = 0;         // of the whole tree, roots included; the rest is hidden
  size_t num_pages = 0;         // in the whole tree
};

}  // namespace trellis
