#include "server/request_id.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

namespace trellis {
namespace {

constexpr size_t kMaxBytes = 128;

bool IsPlain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("-_.:/+=@").find(c) != std::string_view::npos;
}

}  // namespace

std::string RandomId(std::string_view prefix) {
  std::random_device random;
  return fmt::format("{}{:08x}{:08x}", prefix, random(), random());
}

std::string RequestIdFrom(std::string_view wanted) {
  const bool is_sane = !wanted.empty() && wanted.size() <= kMaxBytes &&
                       std::all_of(wanted.begin(), wanted.end(), IsPlain);
  if (is_sane) return std::string(wanted);
  const std::string half = RandomId("req_");  // 64 bits
  return RandomId(half);
}

}  // namespace trellis
