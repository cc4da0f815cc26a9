// LineLimits: when an answer ends because of its lines, as llama-server's clients in editors ask.
// Internal to server/.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>

namespace trellis {

// Of one answer; not shared by threads.
class LineLimits {
 public:
  using Clock = std::chrono::steady_clock;

  // `most_time` (t_max_predict_ms; 0: none): so long after its first token the answer ends with the
  // next text that has a line end. `min_indent` (n_indent; 0: none): it ends where a line, but for
  // the first, begins with fewer spaces and tabs than that; an empty one does.
  LineLimits(std::chrono::milliseconds most_time, size_t min_indent)
      : most_time_(most_time), min_indent_(min_indent) {}

  // The text of the next token, which came at `now`; none is text too.
  enum class End { kNo, kAfter, kWithin };  // within: `text` is cut
  End Take(std::string* text, Clock::time_point now);

 private:
  const std::chrono::milliseconds most_time_;
  const size_t min_indent_;
  std::optional<Clock::time_point> begun_;
  std::optional<size_t> indent_;  // so far, while a line but the first has nothing else
};

}  // namespace trellis
