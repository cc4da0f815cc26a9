// The ids that more than one module passes around. Ids are types, counts stay plain integers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace trellis {

using TokenId = int32_t;  // an entry of the model's vocabulary, as llama.cpp's llama_token

// An integer that cannot be mistaken for another kind of id. Tag is an empty struct.
template <typename Tag, typename Rep>
class StrongId {
 public:
  constexpr StrongId() = default;
  constexpr explicit StrongId(Rep value) : value_(value) {}
  constexpr Rep value() const { return value_; }
  friend constexpr bool operator==(StrongId a, StrongId b) = default;
  friend constexpr auto operator<=>(StrongId a, StrongId b) = default;

 private:
  Rep value_{};
};

using FrameId = StrongId<struct FrameTag, uint32_t>;  // where a page of KV lives in the PagePool
using RequestId = StrongId<struct RequestTag, uint64_t>;  // unique for the life of the process

// Tokens in one page of KV. Pages start at multiples of it.
inline constexpr size_t kPageTokens = 32;

constexpr size_t PagesFor(size_t num_tokens) {
  return (num_tokens + kPageTokens - 1) / kPageTokens;
}

}  // namespace trellis

template <typename Tag, typename Rep>
struct std::hash<trellis::StrongId<Tag, Rep>> {
  size_t operator()(trellis::StrongId<Tag, Rep> id) const { return std::hash<Rep>()(id.value()); }
};
