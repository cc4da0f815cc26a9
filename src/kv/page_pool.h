// PagePool: the memory that pages live in. One arena, mapped at once, touched as it is used, cut
// into frames of one page each.
//
//            Allocate                Commit
//     Free ------------> Private ------------> Committed       Private:   a lease owns it
//      ^                  |   ^                 |   |          Committed: a node of the tree does
//      +------ Free ------+   +--- Withdraw ----+   |
//      +--------------------- Free -----------------+
//
// THREADS: none of its own; see PageCache.
// INVARIANTS: num_free + num_private + num_committed == capacity; the arena never grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "os/buffer.h"

namespace trellis {

class PagePool {
 public:
  enum class FrameState : uint8_t { kFree, kPrivate, kCommitted };

  // A pool of floor(capacity_bytes / page_bytes) frames, all free.
  // ERRORS: kInvalidArgument when that is none, or more than a FrameId can name;
  // kResourceExhausted when the machine refuses the mapping.
  static Result<std::unique_ptr<PagePool>> Create(size_t page_bytes, size_t capacity_bytes);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Free -> Private. Its bytes are what its last owner left. The frame freed last comes first: it
  // is the one that may still be in the machine's caches. REQUIRES: num_free() > 0.
  FrameId Allocate();
  // Private -> Committed.
  void Commit(FrameId frame);
  // Committed -> Private.
  void Withdraw(FrameId frame);
  // Private or Committed -> Free.
  void Free(FrameId frame);

  std::byte* Address(FrameId frame) const { return address_ + frame.value() * page_bytes_; }
  FrameState state(FrameId frame) const { return states_[frame.value()]; }

  size_t page_bytes() const { return page_bytes_; }
  size_t capacity() const { return states_.size(); }
  size_t num_free() const { return capacity() - num_private_ - num_committed_; }
  size_t num_private() const { return num_private_; }
  size_t num_committed() const { return num_committed_; }

 private:
  PagePool(Buffer arena, size_t page_bytes, size_t num_frames);

  Buffer arena_;
  std::byte* const address_;
  const size_t page_bytes_;
  std::vector<FrameState> states_;
  std::vector<FrameId> freed_;  // a stack; frames from num_touched_ up were never used
  size_t num_touched_ = 0;
  size_t num_private_ = 0;
  size_t num_committed_ = 0;
};

}  // namespace trellis
