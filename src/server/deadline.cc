#include "server/deadline.h"

#include <fmt/format.h>

#include <charconv>

namespace trellis {

using Clock = std::chrono::steady_clock;

ApiResult<Clock::time_point> DeadlineOf(const HttpRequest& request) {
  const auto header = request["x-request-timeout"];
  if (header.empty()) return Clock::time_point::max();
  double seconds = 0;
  const auto [end, error] = std::from_chars(header.begin(), header.end(), seconds);
  constexpr double kMost = 7 * 24 * 3600;
  if (error != std::errc() || end != header.end() || !(seconds > 0 && seconds <= kMost)) {
    return ErrorFromStatus(
        Status(StatusCode::kInvalidArgument,
               fmt::format("x-request-timeout must be seconds, up to {}", kMost)));
  }
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

Status TooLate() {
  return Status(StatusCode::kDeadlineExceeded,
                "the answer took longer than the request allows (x-request-timeout)");
}

}  // namespace trellis
