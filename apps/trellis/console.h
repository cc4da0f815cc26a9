// What the commands say to the person in front of them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>

namespace trellis {

// To standard error. That nobody can read it any more is no reason to fail.
template <typename... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  std::fputs(fmt::format(format, std::forward<Args>(args)...).c_str(), stderr);
}

// Sends on what was printed to standard output. THROWS std::system_error when it cannot be written.
inline void FlushOutput() {
  if (std::fflush(stdout) != 0) throw fmt::system_error(errno, "cannot write to standard output");
}

// "[####      ]  40 %". REQUIRES: total > 0.
inline std::string Bar(size_t done, size_t total) {
  constexpr size_t kWidth = 40;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto filled = static_cast<size_t>(share * kWidth);
  return fmt::format("[{}{}] {:3.0f} %", std::string(filled, '#'),
                     std::string(kWidth - filled, ' '), share * 100);
}

}  // namespace trellis
