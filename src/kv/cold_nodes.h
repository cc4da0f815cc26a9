// ColdNodes: the nodes that no lease pins, in the order of their eviction.
//
//   class 1   coldest -> [leaf] -> [their parent] -> ... -> warmest
//   class 0   coldest -> [leaf] -> [leaf] -> ... -> warmest
//
// One list for each class of the policy. Release appends the nodes that it unpins, the deepest
// first, and gives a parent no lower class than its child. So a child is colder than its parent or
// in a lower class: the coldest node of the lowest class is a leaf, and no pinned node is ever met.
// Intrusive: every operation is O(1), or O(classes) for a victim, and allocates nothing.
//
// T is a node; `colder`, `warmer`, `cold_class`, `num_cold_pages` and `is_cold` belong to the
// lists, but for the class of a node that is not cold.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "kv/eviction_policy.h"

namespace trellis {

template <typename T>
class ColdNodes {
 public:
  explicit ColdNodes(EvictionPolicyKind kind) : policy_(EvictionPolicy::Make(kind)) {}

  const EvictionPolicy& policy() const { return *policy_; }
  T* coldest(size_t cold_class) const { return ends_[cold_class].coldest; }
  // The leaf whose last page goes next; null: there is none. One that will not be used again, or
  // the coldest of the class that the policy names; if children of that are left in lower classes,
  // the coldest of the lowest.
  T* Victim(int64_t now) {
    T* lowest = nullptr;
    for (size_t i = policy_->num_classes(); i-- > 0;) {
      if (ends_[i].coldest == nullptr) continue;
      lowest = ends_[i].coldest;
      if (lowest->last_used < 0) return lowest;
      classes_[i].last_used = lowest->last_used;
    }
    if (lowest == nullptr) return nullptr;
    const auto classes = std::span(classes_).first(policy_->num_classes());
    T* chosen = ends_[policy_->Victim(classes, now)].coldest;
    return chosen->is_leaf() ? chosen : lowest;
  }

  // As the warmest of node.cold_class.
  void Append(T& node) { Link(node, ends_[node.cold_class].warmest, nullptr); }
  // As the coldest. REQUIRES: it is a leaf.
  void Prepend(T& node) { Link(node, nullptr, ends_[node.cold_class].coldest); }
  // In the list of `other`, next to it on the warmer side.
  void InsertWarmer(T& node, T& other) {
    node.cold_class = other.cold_class;
    Link(node, &other, other.warmer);
  }
  void Remove(T& node) {
    Ends& ends = ends_[node.cold_class];
    (node.colder != nullptr ? node.colder->warmer : ends.coldest) = node.warmer;
    (node.warmer != nullptr ? node.warmer->colder : ends.warmest) = node.colder;
    node.colder = node.warmer = nullptr;
    node.is_cold = false;
    classes_[node.cold_class].num_nodes--;
    classes_[node.cold_class].num_pages -= std::exchange(node.num_cold_pages, 0);
  }
  // The node has more pages, or fewer.
  void CountPages(T& node) {
    if (!node.is_cold) return;
    classes_[node.cold_class].num_pages += node.frames.size() - node.num_cold_pages;
    node.num_cold_pages = node.frames.size();
  }
  size_t num_pages(size_t cold_class) const { return classes_[cold_class].num_pages; }

 private:
  struct Ends {
    T* coldest = nullptr;
    T* warmest = nullptr;
  };

  void Link(T& node, T* colder, T* warmer) {
    Ends& ends = ends_[node.cold_class];
    node.colder = colder;
    node.warmer = warmer;
    (colder != nullptr ? colder->warmer : ends.coldest) = &node;
    (warmer != nullptr ? warmer->colder : ends.warmest) = &node;
    node.is_cold = true;
    classes_[node.cold_class].num_nodes++;
    CountPages(node);
  }

  const std::unique_ptr<EvictionPolicy> policy_;
  std::array<Ends, EvictionPolicy::kMaxClasses> ends_;
  std::array<EvictionPolicy::Class, EvictionPolicy::kMaxClasses> classes_;
};

}  // namespace trellis
