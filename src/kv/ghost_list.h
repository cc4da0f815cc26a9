// GhostList: the keys of pages that were evicted, the latest so many. They cost some 80 bytes each
// where the page had a hundred thousand and more, and tell a miss of what was never there from one
// of what was.
#pragma once

#include <cstddef>
#include <deque>
#include <unordered_map>
#include <utility>

#include "kv/page_key.h"

namespace trellis {

class GhostList {
 public:
  // `capacity` 0: remembers nothing.
  explicit GhostList(size_t capacity) : capacity_(capacity) {}

  bool Contains(const PageKey& key) const { return turns_.contains(key); }
  // As the latest.
  void Add(const PageKey& key) {
    if (capacity_ == 0) return;
    turns_[key] = ++turn_;
    order_.emplace_back(key, turn_);
    while (order_.size() > capacity_) {
      const auto [oldest, turn] = order_.front();
      order_.pop_front();
      const auto it = turns_.find(oldest);
      if (it != turns_.end() && it->second == turn) turns_.erase(it);  // else it was added again
    }
  }
  void Clear() {
    turns_.clear();
    order_.clear();
  }

  // At most its capacity; what was added again since counts twice.
  size_t size() const { return order_.size(); }
  // An estimate: an entry of each table, with what the allocator adds.
  size_t num_bytes() const {
    return turns_.size() * (sizeof(PageKey) + 4 * sizeof(void*)) +
           order_.size() * sizeof(order_.front());
  }

 private:
  const size_t capacity_;
  uint64_t turn_ = 0;
  std::unordered_map<PageKey, uint64_t> turns_;     // when it was added last
  std::deque<std::pair<PageKey, uint64_t>> order_;  // the oldest first
};

}  // namespace trellis
