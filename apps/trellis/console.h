// What the commands say to the person in front of them.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace trellis {

using SayWriter = std::function<void(std::string_view)>;
// To standard error. That nobody can read it any more is no reason to fail.
inline SayWriter say_writer = [](std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stderr);
};
// From now on what is said goes there instead; before there are threads.
inline void SayThrough(SayWriter writer) {
  say_writer = std::move(writer);
}

template <typename... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  say_writer(fmt::format(format, std::forward<Args>(args)...));
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
