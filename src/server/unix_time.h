// When something ends, for clients, who have another clock. Internal to server/.
#pragma once

#include <chrono>
#include <cstdint>

namespace trellis {

// Seconds since 1970 at `time`, as far as the clocks go together from now on.
inline int64_t UnixSeconds(std::chrono::steady_clock::time_point time) {
  const auto at = std::chrono::system_clock::now() + (time - std::chrono::steady_clock::now());
  return std::chrono::duration_cast<std::chrono::seconds>(at.time_since_epoch()).count();
}

}  // namespace trellis
