#include "api/json_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/utf8.h"

namespace trellis {
namespace {

// nlohmann's messages end with what was read last, which may be the whole body.
constexpr size_t kMaxMessageBytes = 300;
constexpr std::string_view kJsonSpace = " \t\r\n";

// nlohmann's messages start with "[json.exception.parse_error.101] "; the rest is good English.
std::string WithoutPrefix(std::string_view what) {
  const size_t end = what.find("] ");
  return std::string(end == std::string_view::npos ? what : what.substr(end + 2));
}

// The string, number, word, object or array at text[begin], without looking inside: its end.
// REQUIRES: valid JSON.
size_t EndOfValue(std::string_view text, size_t begin) {
  size_t depth = 0;
  for (size_t i = begin; i < text.size(); i++) {
    const char c = text[i];
    if (c == '"') {
      for (i++; text[i] != '"'; i++) {
        if (text[i] == '\\') i++;
      }
      if (depth == 0) return i + 1;
    } else if (c == '{' || c == '[') {
      depth++;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return i;  // a number or a word, at the end of what holds it
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == ',' || c == ':' || kJsonSpace.find(c) != kJsonSpace.npos)) {
      return i;
    }
  }
  return text.size();
}

size_t SkipSpace(std::string_view text, size_t i) {
  return std::min(text.find_first_not_of(kJsonSpace, i), text.size());
}

// Where the next member or element begins, behind one that ends at `end`.
size_t NextOne(std::string_view text, size_t end) {
  end = SkipSpace(text, end);
  return end < text.size() && text[end] == ',' ? SkipSpace(text, end + 1) : end;
}

}  // namespace

std::string_view RawMember(std::string_view text, std::string_view name) {
  std::string_view found;
  size_t i = SkipSpace(text, text.find('{') + 1);
  while (i < text.size() && text[i] == '"') {
    const size_t key_end = EndOfValue(text, i);
    const bool is_it = Json::parse(text.substr(i, key_end - i)) == name;  // it may have escapes
    const size_t begin = SkipSpace(text, SkipSpace(text, key_end) + 1);
    const size_t end = EndOfValue(text, begin);
    if (is_it) found = text.substr(begin, end - begin);
    i = NextOne(text, end);
  }
  return found;
}

std::vector<std::string_view> RawElements(std::string_view text) {
  std::vector<std::string_view> elements;
  size_t i = SkipSpace(text, text.find('[') + 1);
  while (i < text.size() && text[i] != ']') {
    const size_t end = EndOfValue(text, i);
    elements.push_back(text.substr(i, end - i));
    i = NextOne(text, end);
  }
  return elements;
}

size_t NestingDepth(std::string_view text) {
  size_t depth = 0, deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') i++;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      depth--;
    }
  }
  return deepest;
}

ApiResult<Json> ParseJson(std::string_view text) {
  if (NestingDepth(text) > kMaxJsonDepth) {
    ApiError error = InvalidField(
        "", fmt::format("the JSON is nested deeper than {} levels: flatten it", kMaxJsonDepth));
    error.code = "json_too_deep";
    return error;
  }
  std::string message;
  try {
    return Json::parse(text);
  } catch (const Json::exception& e) {
    message = WithoutPrefix(e.what());
  }
  ApiError error = InvalidField("", "the body is not JSON: " + Excerpt(message, kMaxMessageBytes));
  error.code = "invalid_json";
  return error;
}

std::string ToText(const OrderedJson& value) {
  return value.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

std::string ValidUtf8(std::string_view text) {
  std::string valid;
  Utf8Repair repair;
  repair.Feed(text, valid);
  repair.Finish(valid);
  return valid;
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    if (length == 1 && static_cast<unsigned char>(text[0]) >= 0x80) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace trellis
