// PinTable: prompts that stay cached for a time, whatever else comes: leases that outlive their
// requests.
//
// A pin holds the whole pages of a prompt's resident prefix until its time is up. All pins together
// hold no more than a share of the cache (max_pages; pages that several hold count once), so nobody
// can freeze it: where a new pin does not fit, the owner that holds most, counting the new one,
// gives up the pin that would have ended first; if it has no other, the new one is shorter. A
// prompt that goes on from one that its owner has pinned, and does not end earlier, takes its place
// and its id, so a conversation is one pin however many turns it has.
//
// Whoever needs the memory to run at all may take pins back (ReleaseOne).
//
// THREADS: none of its own; that of its cache. Time is given, never read.
// INVARIANT: num_pages() is the number of different pages that pins hold, and at most max_pages.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/types.h"
#include "kv/page_cache.h"
#include "kv/page_key.h"

namespace trellis {

using PinId = StrongId<struct PinTag, uint64_t>;

class PinTable {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr size_t kMaxPins = 256;  // an owner with more loses the one that ends first

  // `cache` outlives the table.
  PinTable(PageCache& cache, size_t max_pages) : cache_(cache), max_pages_(max_pages) {}

  struct Added {
    PinId id;
    size_t num_tokens = 0;  // that it holds; 0: nothing of it is resident, and there is no pin
    TimePoint expires;
  };
  // Pins what is resident of the whole pages of `tokens`, or as much of that as fits max_pages,
  // until `expires`; if a pin of the owner holds them for longer, it is that one. COST: a hash for
  // each page, and O(pins).
  Added Add(const std::string& owner, const ScopeKey& scope, std::span<const TokenId> tokens,
            TimePoint expires);
  // Ends one of `owner`'s; false: it has none of that id.
  bool Remove(PinId id, const std::string& owner);
  // Ends all of `owner`'s; returns how many.
  size_t RemoveAll(const std::string& owner);
  void Clear() {
    pins_.clear();
    holders_.clear();
  }

  // Ends those whose time is up. COST: O(1), and those.
  void Expire(TimePoint now);
  // When that will be the next time. O(1).
  std::optional<TimePoint> NextExpiry() const;
  // Ends the one that would have ended first; false: there is none.
  bool ReleaseOne();

  struct View {
    PinId id;
    std::string owner;
    size_t num_pages = 0;  // what it holds, all of them whole
    TimePoint expires;
  };
  // All of them, the one that ends first is first.
  std::vector<View> List() const;

  size_t size() const { return pins_.size(); }
  size_t num_pages() const { return holders_.size(); }
  size_t max_pages() const { return max_pages_; }

 private:
  struct Pin {
    PinId id;
    std::string owner;
    std::vector<PageKey> keys;  // of its pages
    TimePoint expires;
    Lease lease;
  };
  using Place = std::list<Pin>::iterator;

  size_t CountNewPages(std::span<const PageKey> keys) const;
  size_t MakeRoom(const std::string& owner, std::span<const PageKey> keys);
  Place Erase(Place pin);

  PageCache& cache_;
  const size_t max_pages_;
  std::list<Pin> pins_;                          // the one that ends first is first
  std::unordered_map<PageKey, size_t> holders_;  // pins of each page
  uint64_t next_id_ = 1;
};

}  // namespace trellis
