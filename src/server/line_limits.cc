#include "server/line_limits.h"

namespace trellis {

LineLimits::End LineLimits::Take(std::string* text, Clock::time_point now) {
  if (!begun_) begun_ = now;
  bool has_line_end = false;
  for (size_t i = 0; i < text->size(); i++) {
    const char c = (*text)[i];
    if (indent_ && (c == ' ' || c == '\t')) {
      ++*indent_;
      continue;
    }
    if (indent_ && *indent_ < min_indent_) {
      text->resize(i);
      return End::kWithin;
    }
    indent_.reset();
    if (c != '\n') continue;
    indent_ = 0;
    has_line_end = true;
  }
  const bool is_late = most_time_.count() > 0 && now - *begun_ > most_time_;
  return has_line_end && is_late ? End::kAfter : End::kNo;
}

}  // namespace trellis
