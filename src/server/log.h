// Log: what the server tells those who run it, a line for each thing that happens. A line is what
// happened, and named fields:
//
//   kText  [2026-11-29 02:18:06.123] [trellis] [info] answer id=cmpl-1 finish_reason=stop
//   prompt_tokens=12 kJson
//   {"time":"2026-11-29T02:18:06.123Z","level":"info","event":"answer","id":"cmpl-1",
//           "finish_reason":"stop","prompt_tokens":12}
//
// A field of one name has one type, in whatever line. What a client has sent cannot end a line or
// look like another field. Keys are never logged.
//
// THREADS: any.
#pragma once

#include <string_view>

#include "api/json_text.h"

namespace trellis {

enum class LogFormat { kText, kJson };

class Log {
 public:
  // Lines go to spdlog's default logger, which StartLog prepares.
  explicit Log(LogFormat format) : format_(format) {}

  // `fields` is an object. "message", words for people, stands behind the others in text.
  void Info(std::string_view event, const OrderedJson& fields = OrderedJson::object()) const;
  void Warning(std::string_view event, const OrderedJson& fields) const;
  void Error(std::string_view event, const OrderedJson& fields) const;

 private:
  enum class Level { kInfo, kWarning, kError };
  void Write(Level level, std::string_view event, const OrderedJson& fields) const;

  LogFormat format_;
};

// From now on the process's log is lines of `format` on standard error. Before any is written.
void StartLog(LogFormat format);

}  // namespace trellis
