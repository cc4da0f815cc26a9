// Buffer: a large block of zeroed memory, aligned to system pages; from 2 MiB on to huge pages,
// which it lies on where the machine allows.
#pragma once

#include <cstddef>

#include "base/status.h"

namespace trellis {

// Move-only. Memory is touched, and counted by the system, only when used.
class Buffer {
 public:
  Buffer() = default;
  // ERRORS: kResourceExhausted, saying how much was asked for.
  static Result<Buffer> Allocate(size_t size);
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  ~Buffer();

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  Buffer(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace trellis
