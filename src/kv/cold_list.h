// ColdList: the nodes that no lease pins, coldest first: the order of eviction.
//
//   coldest -> [leaf] -> [leaf] -> [their parent] -> ... -> warmest
//
// Release appends the nodes that it unpins, the deepest first, so a child is always colder than its
// parent. Hence the coldest node is a leaf, and eviction needs no search and never meets a pinned
// node. Intrusive, so that every operation is O(1) and allocates nothing.
//
// T has `T* colder` and `T* warmer`, which belong to the list.
#pragma once

namespace trellis {

template <typename T>
class ColdList {
 public:
  T* coldest() const { return coldest_; }

  // As the warmest.
  void Append(T& node) { Link(node, warmest_, nullptr); }
  // Next to `other`, on the warmer side.
  void InsertWarmer(T& node, T& other) { Link(node, &other, other.warmer); }
  void Remove(T& node) {
    (node.colder != nullptr ? node.colder->warmer : coldest_) = node.warmer;
    (node.warmer != nullptr ? node.warmer->colder : warmest_) = node.colder;
    node.colder = node.warmer = nullptr;
  }

 private:
  void Link(T& node, T* colder, T* warmer) {
    node.colder = colder;
    node.warmer = warmer;
    (colder != nullptr ? colder->warmer : coldest_) = &node;
    (warmer != nullptr ? warmer->colder : warmest_) = &node;
  }

  T* coldest_ = nullptr;
  T* warmest_ = nullptr;
};

}  // namespace trellis
