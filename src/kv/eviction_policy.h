// EvictionPolicy: which pages go first when there is no room.
//
// The tree keeps the nodes that no lease pins in a few lists, one for each class of worth, each in
// the order of last use. A policy says in which class a node's rows belong, and from which class
// the next page goes: its coldest. So every policy costs O(classes) for a page, whatever the size
// of the tree, and is a few lines.
//
//   policy  class                                      next page
//   lru     one for all                                used longest ago
//   slru    0: used once, 1: again                     of class 0, unless class 1 has more than 4/5
//                                                      of what is unpinned
//   lfu     log2 of the uses                           of the lowest class
//   priority  the smallest priority of the      of the lowest class
//             requests that used it
//   cost    2 log2 of what it costs to do without it:  oldest for its worth: age / 2^(class / 2)
//           uses, and what a token costs at its depth
//
// RULE, on which the tree relies: a class never falls while uses grow and priorities become
// smaller. Rows above others were used as often at least; the tree sees to it that they are in no
// lower class.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace trellis {

enum class EvictionPolicyKind { kLru, kSlru, kLfu, kPriority, kCost };
inline constexpr EvictionPolicyKind kEvictionPolicies[] = {
    EvictionPolicyKind::kLru, EvictionPolicyKind::kSlru, EvictionPolicyKind::kLfu,
    EvictionPolicyKind::kPriority, EvictionPolicyKind::kCost};
std::string_view EvictionPolicyName(EvictionPolicyKind kind);
std::optional<EvictionPolicyKind> FindEvictionPolicy(std::string_view name);

class EvictionPolicy {
 public:
  static constexpr size_t kMaxClasses = 16;

  struct Class {
    size_t num_nodes = 0;
    size_t num_pages = 0;   // of these nodes
    int64_t last_used = 0;  // when the coldest of them was, if there is one
  };

  static std::unique_ptr<EvictionPolicy> Make(EvictionPolicyKind kind);
  virtual ~EvictionPolicy() = default;

  virtual size_t num_classes() const = 0;  // 1 .. kMaxClasses
  // How a node was used: one that ends at row `end` of its path and whose first row `uses` leases
  // have held, of which the most urgent had `priority` (the smallest). What the latest of them
  // added behind it counts as used alike, as long as nothing branches off.
  struct Use {
    uint64_t uses = 0;
    size_t end = 0;
    int32_t priority = 0;
  };
  virtual size_t ClassOf(const Use& use) const = 0;
  // One that has a node. REQUIRES: there is one. `now`: on the clock of last_used.
  virtual size_t Victim(std::span<const Class> classes, int64_t now) const = 0;
};

}  // namespace trellis
