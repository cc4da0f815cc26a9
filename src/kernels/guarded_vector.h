// For tests: a vector that ends where memory ends. Its last element is followed by a page that
// nobody may touch, and a page like it lies before, so that a kernel that reads or writes beyond
// what it was given stops the test, in assembly too, where AddressSanitizer does not look.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <new>
#include <vector>

namespace trellis {

template <typename T>
struct GuardedAllocator {
  using value_type = T;

  GuardedAllocator() = default;
  template <typename U>
  GuardedAllocator(const GuardedAllocator<U>&) {}

  T* allocate(size_t n) {
    const size_t page = PageBytes(), bytes = n * sizeof(T), inner = InnerBytes(n);
    void* all = mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    auto* begin = static_cast<std::byte*>(all) + page;
    if (mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    return reinterpret_cast<T*>(begin + inner - bytes);
  }
  void deallocate(T* data, size_t n) {
    const size_t page = PageBytes(), inner = InnerBytes(n);
    auto* end = reinterpret_cast<std::byte*>(data) + n * sizeof(T);
    munmap(end - inner - page, inner + 2 * page);
  }
  bool operator==(const GuardedAllocator&) const { return true; }

 private:
  static size_t PageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  static size_t InnerBytes(size_t n) {
    return (n * sizeof(T) + PageBytes() - 1) / PageBytes() * PageBytes();
  }
};

// Elements begin at a multiple of 64 bytes if they are a multiple of 64 bytes together.
template <typename T>
using GuardedVector = std::vector<T, GuardedAllocator<T>>;

}  // namespace trellis
