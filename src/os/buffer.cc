#include "os/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

namespace trellis {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// `size` bytes at a multiple of kHugePage: mapped with room to spare, which is given back.
void* MapAligned(size_t size, int flags) {
  void* data = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (data == MAP_FAILED) return data;
  auto* begin = static_cast<std::byte*>(data);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t kept = (size + page - 1) / page * page;
  if (before > 0) munmap(begin, before);
  if (before + kept < size + kHugePage) {
    munmap(begin + before + kept, size + kHugePage - before - kept);
  }
  return begin + before;
}

}  // namespace

Result<Buffer> Buffer::Allocate(size_t size) {
  if (size == 0) return Buffer();
  constexpr int kFlags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* data = size < kHugePage ? mmap(nullptr, size, PROT_READ | PROT_WRITE, kFlags, -1, 0)
                                : MapAligned(size, kFlags);
  if (data == MAP_FAILED) {
    return Status(StatusCode::kResourceExhausted,
                  fmt::format("cannot map {} MiB of memory: {}", size >> 20, std::strerror(errno)));
  }
  madvise(data, size, MADV_HUGEPAGE);  // advice: small pages work too
  return Buffer(static_cast<std::byte*>(data), size);
}

Buffer::Buffer(Buffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer& Buffer::operator=(Buffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace trellis
