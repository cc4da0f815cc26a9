#include "kv/page_pool.h"

#include <fmt/format.h>

#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define TRELLIS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRELLIS_ASAN 1
#endif
#endif

#if defined(TRELLIS_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace trellis {
namespace {

// Whoever touches a free frame is caught by AddressSanitizer.
void Forbid([[maybe_unused]] std::byte* begin, [[maybe_unused]] size_t size) {
#if defined(TRELLIS_ASAN)
  ASAN_POISON_MEMORY_REGION(begin, size);
#endif
}

void Allow([[maybe_unused]] std::byte* begin, [[maybe_unused]] size_t size) {
#if defined(TRELLIS_ASAN)
  ASAN_UNPOISON_MEMORY_REGION(begin, size);
#endif
}

}  // namespace

Result<std::unique_ptr<PagePool>> PagePool::Create(size_t page_bytes, size_t capacity_bytes) {
  if (page_bytes == 0) {
    return Status(StatusCode::kInvalidArgument, "KV cache: the page layout is empty");
  }
  const size_t num_frames = capacity_bytes / page_bytes;
  if (num_frames == 0) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("a KV cache of {} bytes holds no page: one page of {} tokens takes "
                              "{} bytes of this model",
                              capacity_bytes, kPageTokens, page_bytes));
  }
  if (num_frames > std::numeric_limits<uint32_t>::max()) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("a KV cache of {} bytes has {} pages, more than can be numbered",
                              capacity_bytes, num_frames));
  }
  Result<Buffer> arena = Buffer::Allocate(num_frames * page_bytes);
  if (!arena.ok()) {
    return Status(arena.status().code(),
                  fmt::format("KV cache: {}; choose a smaller one", arena.status().message()));
  }
  return std::unique_ptr<PagePool>(new PagePool(std::move(*arena), page_bytes, num_frames));
}

PagePool::PagePool(Buffer arena, size_t page_bytes, size_t num_frames)
    : arena_(std::move(arena)),
      address_(arena_.data()),
      page_bytes_(page_bytes),
      states_(num_frames, FrameState::kFree) {
  Forbid(address_, arena_.size());
}

PagePool::~PagePool() {
  Allow(address_, arena_.size());
}

FrameId PagePool::Allocate() {
  TRELLIS_CHECK(num_free() > 0);
  FrameId frame(static_cast<uint32_t>(num_touched_));
  if (freed_.empty()) {
    num_touched_++;
  } else {
    frame = freed_.back();
    freed_.pop_back();
  }
  states_[frame.value()] = FrameState::kPrivate;
  num_private_++;
  Allow(Address(frame), page_bytes_);
  return frame;
}

void PagePool::Commit(FrameId frame) {
  TRELLIS_CHECK(state(frame) == FrameState::kPrivate);
  states_[frame.value()] = FrameState::kCommitted;
  num_private_--;
  num_committed_++;
}

void PagePool::Withdraw(FrameId frame) {
  TRELLIS_CHECK(state(frame) == FrameState::kCommitted);
  states_[frame.value()] = FrameState::kPrivate;
  num_committed_--;
  num_private_++;
}

void PagePool::Free(FrameId frame) {
  TRELLIS_CHECK(state(frame) != FrameState::kFree);
  (state(frame) == FrameState::kPrivate ? num_private_ : num_committed_)--;
  states_[frame.value()] = FrameState::kFree;
  freed_.push_back(frame);
#if defined(TRELLIS_DEBUG_CHECKS)
  // Stale reads become NaNs.
  std::memset(Address(frame), 0xff, page_bytes_);
#endif
  Forbid(Address(frame), page_bytes_);
}

}  // namespace trellis
