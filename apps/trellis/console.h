// What the commands say to the person in front of them.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
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

}  // namespace trellis
