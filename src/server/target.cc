#include "server/target.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace trellis {

std::string PercentDecoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); i++) {
    unsigned char byte = 0;
    const char* digits = text.data() + i + 1;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out += static_cast<char>(byte);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::optional<std::string> QueryValue(const HttpRequest& request, std::string_view name) {
  std::string_view rest(request.target().data(), request.target().size());
  rest.remove_prefix(std::min(rest.size(), rest.find('?')));
  while (!rest.empty()) {
    rest.remove_prefix(1);  // ? or &
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(pair.size());
    const size_t equals = std::min(pair.size(), pair.find('='));
    if (PercentDecoded(pair.substr(0, equals)) != name) continue;
    std::string value(pair.substr(std::min(pair.size(), equals + 1)));
    std::replace(value.begin(), value.end(), '+', ' ');
    return PercentDecoded(value);
  }
  return std::nullopt;
}

ApiResult<uint64_t> QueryNumber(const HttpRequest& request, std::string_view name, uint64_t low,
                                uint64_t high, uint64_t absent) {
  const std::optional<std::string> text = QueryValue(request, name);
  if (!text) return absent;
  uint64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc() || rest != end || value < low || value > high) {
    return InvalidField(std::string(name), fmt::format("{} is \"{}\"; it is a number from {} to {}",
                                                       name, Excerpt(*text), low, high));
  }
  return value;
}

}  // namespace trellis
