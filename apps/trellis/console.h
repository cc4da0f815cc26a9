// What the commands say to the person in front of them.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

namespace trellis {

// To standard error. That nobody can read it any more is no reason to fail.
void SayText(std::string_view text);

template <typename... Args>
void Say(fmt::format_string<Args...> format, Args&&... args) {
  SayText(fmt::format(format, std::forward<Args>(args)...));
}

// From now on what is said goes there instead. REQUIRES: there are no other threads yet.
using SayWriter = std::function<void(std::string_view)>;
void SayThrough(SayWriter writer);

// Sends on what was printed to standard output. THROWS std::system_error when it cannot be written.
void FlushOutput();

// "[####      ]  40 %". REQUIRES: total > 0.
std::string Bar(size_t done, size_t total);

}  // namespace trellis
