#include "console.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace trellis {
namespace {

SayWriter& Writer() {
  static SayWriter writer = [](std::string_view text) {
    std::fwrite(text.data(), 1, text.size(), stderr);
  };
  return writer;
}

}  // namespace

void SayThrough(SayWriter writer) {
  Writer() = std::move(writer);
}

void SayText(std::string_view text) {
  Writer()(text);
}

void FlushOutput() {
  if (std::fflush(stdout) != 0) throw fmt::system_error(errno, "cannot write to standard output");
}

std::string Bar(size_t done, size_t total) {
  constexpr size_t kWidth = 40;
  const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto filled = static_cast<size_t>(share * kWidth);
  return fmt::format("[{}{}] {:3.0f} %", std::string(filled, '#'),
                     std::string(kWidth - filled, ' '), share * 100);
}

}  // namespace trellis
