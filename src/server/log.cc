#include "server/log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <string>

namespace trellis {
namespace {

// In UTC, with milliseconds.
std::string TimeText(std::chrono::system_clock::time_point time) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time - seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), ms.count());
}

// Words that need no quotes in text.
bool IsPlain(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return c > ' ' && c < 0x7F && c != '"' && c != '\\' && c != '=';
  });
}

std::string ValueText(const OrderedJson& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return IsPlain(text) ? text : ToText(value);
  }
  if (!value.is_object()) return ToText(value);
  std::string pairs;  // "cold:50,new_tokens:1"
  for (const auto& [name, count] : value.items())
    pairs += fmt::format("{}{}:{}", pairs.empty() ? "" : ",", name, ValueText(count));
  return pairs;
}

std::string TextLine(std::string_view event, const OrderedJson& fields) {
  std::string line(event), message;
  for (const auto& [name, value] : fields.items()) {
    if (name == "message") {
      message = ": " + value.get<std::string>();
    } else {
      line += fmt::format(" {}={}", name, ValueText(value));
    }
  }
  // It needs no quotes at the end of the line, as long as it has one end only.
  std::replace_if(
      message.begin(), message.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return line + message;
}

}  // namespace

void Log::Info(std::string_view event, const OrderedJson& fields) const {
  Write(Level::kInfo, event, fields);
}
void Log::Warning(std::string_view event, const OrderedJson& fields) const {
  Write(Level::kWarning, event, fields);
}
void Log::Error(std::string_view event, const OrderedJson& fields) const {
  Write(Level::kError, event, fields);
}

void Log::Write(Level level, std::string_view event, const OrderedJson& fields) const {
  const auto spdlog_level = level == Level::kInfo      ? spdlog::level::info
                            : level == Level::kWarning ? spdlog::level::warn
                                                       : spdlog::level::err;
  if (format_ == LogFormat::kText) {
    spdlog::log(spdlog_level, "{}", TextLine(event, fields));
    return;
  }
  OrderedJson line = {{"time", TimeText(std::chrono::system_clock::now())},
                      {"level", level == Level::kInfo      ? "info"
                                : level == Level::kWarning ? "warning"
                                                           : "error"},
                      {"event", event}};
  line.update(fields);
  spdlog::log(spdlog_level, "{}", ToText(line));
}

void StartLog(LogFormat format) {
  spdlog::set_default_logger(spdlog::stderr_color_mt("trellis"));
  if (format == LogFormat::kJson) spdlog::set_pattern("%v");
}

}  // namespace trellis
