#include "os/buffer.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

namespace trellis {
namespace {

TEST(BufferTest, IsZeroedWritableAndAligned) {
  for (const size_t size :
       {size_t{1}, size_t{4096}, (size_t{2} << 20) - 1, size_t{2} << 20, (size_t{5} << 20) + 1}) {
    Buffer buffer = Buffer::Allocate(size).value();
    ASSERT_EQ(buffer.size(), size);
    const size_t alignment = size < size_t{2} << 20 ? 4096 : size_t{2} << 20;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % alignment, 0u) << size;
    const size_t places[] = {0, size / 2, size - 1};
    for (const size_t at : places) EXPECT_EQ(buffer.data()[at], std::byte{0});
    for (const size_t at : places) buffer.data()[at] = std::byte{7};
    Buffer moved = std::move(buffer);
    EXPECT_EQ(moved.data()[size - 1], std::byte{7});
  }
  EXPECT_EQ(Buffer::Allocate(0).value().size(), 0u);
}

TEST(BufferTest, TooMuchIsAnError) {
  const auto buffer = Buffer::Allocate(size_t{1} << 60);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace trellis
