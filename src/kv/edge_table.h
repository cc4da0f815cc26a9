// EdgeTable: finds a node by its parent and the first token of its label, and owns it. One table
// for the children of all nodes: a node with 10^5 of them is as fast as a node with one, and one
// with none costs nothing.
//
// Chained, with the links in the nodes: a look-up that nothing of is in the processor's caches
// waits for two lines of memory, the bucket's and the node's. Those waits are what matching a long
// path costs, and std::unordered_map has two more of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/types.h"

namespace trellis {

// T has `parent`, `label` and `std::unique_ptr<T> next_in_bucket`, which belongs to the table.
template <typename T>
class EdgeTable {
 public:
  size_t size() const { return size_; }

  T* Find(const T& parent, TokenId token) const {
    if (buckets_.empty()) return nullptr;
    T* node = buckets_[Bucket(&parent, token)].get();
    while (node != nullptr && !(node->parent == &parent && node->label.front() == token)) {
      node = node->next_in_bucket.get();
    }
    return node;
  }

  // REQUIRES: it has a parent and a label, which stay until Take, and there is no such edge.
  void Insert(std::unique_ptr<T> node) {
    if (size_ == buckets_.size()) Grow();
    Link(std::move(node));
    size_++;
  }

  // REQUIRES: it is here.
  std::unique_ptr<T> Take(const T& node) {
    std::unique_ptr<T>* link = &buckets_[Bucket(node.parent, node.label.front())];
    while (link->get() != &node) link = &(*link)->next_in_bucket;
    std::unique_ptr<T> taken = std::move(*link);
    *link = std::move(taken->next_in_bucket);
    size_--;
    return taken;
  }

  template <typename Visit>
  void ForEach(Visit visit) const {
    for (const auto& bucket : buckets_) {
      for (const T* node = bucket.get(); node != nullptr; node = node->next_in_bucket.get()) {
        visit(*node);
      }
    }
  }

 private:
  size_t Bucket(const T* parent, TokenId token) const {
    // Tokens come from clients; where a node lies in memory they cannot know.
    uint64_t x = reinterpret_cast<uintptr_t>(parent) / alignof(T);
    x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9u + static_cast<uint32_t>(token);
    x = (x ^ (x >> 32)) * 0x94d049bb133111ebu;
    return static_cast<size_t>(x ^ (x >> 31)) & (buckets_.size() - 1);
  }
  void Link(std::unique_ptr<T> node) {
    std::unique_ptr<T>& bucket = buckets_[Bucket(node->parent, node->label.front())];
    node->next_in_bucket = std::move(bucket);
    bucket = std::move(node);
  }
  void Grow() {
    std::vector<std::unique_ptr<T>> old(buckets_.empty() ? 16 : 2 * buckets_.size());
    old.swap(buckets_);
    for (std::unique_ptr<T>& bucket : old) {
      while (std::unique_ptr<T> node = std::move(bucket)) {
        bucket = std::move(node->next_in_bucket);
        Link(std::move(node));
      }
    }
  }

  std::vector<std::unique_ptr<T>> buckets_;  // their number is a power of two
  size_t size_ = 0;
};

}  // namespace trellis
