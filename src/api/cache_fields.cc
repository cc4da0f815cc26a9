#include "api/cache_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>

namespace trellis {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr seconds kLongestPin = hours(24 * 7);

// "90s", "5m", "1h"; nothing if it is none of these.
std::optional<seconds> ParseDuration(std::string_view text) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end + 1 != text.data() + text.size() || count < 1) {
    return std::nullopt;
  }
  const int64_t unit = *end == 's' ? 1 : *end == 'm' ? 60 : *end == 'h' ? 3600 : 0;
  if (unit == 0 || count > kLongestPin.count() / unit) return std::nullopt;
  return seconds(count * unit);
}

void ReadRetention(FieldReader& body, std::vector<CacheBreakpoint>* out) {
  std::string retention = "in-memory";
  body.String("prompt_cache_retention", &retention);
  if (retention == "24h") {
    out->push_back({kWholePrompt, hours(24)});
  } else if (retention != "in-memory" && retention != "in_memory") {
    body.Fail(InvalidField(
        "prompt_cache_retention",
        fmt::format("prompt_cache_retention is \"{}\"; it must be \"in-memory\" or \"24h\"",
                    Excerpt(retention))));
  }
}

}  // namespace

void ReadCacheControl(FieldReader& object, size_t messages, std::vector<CacheBreakpoint>* out) {
  const Json* value = object.Find("cache_control");
  if (value == nullptr || !object.ok()) return;
  const std::string param = object.ParamOf("cache_control");
  if (!value->is_object()) return object.FailType(param, "an object", *value);
  FieldReader reader(*value, param);
  std::string type, ttl = "5m";
  reader.String("type", &type);
  reader.String("ttl", &ttl);
  if (!reader.ok()) return object.Fail(reader.error());
  if (type != "ephemeral") {
    return object.Fail(
        InvalidField(reader.ParamOf("type"), reader.ParamOf("type") + " must be \"ephemeral\""));
  }
  if (ttl != "5m" && ttl != "1h") {
    return object.Fail(
        InvalidField(reader.ParamOf("ttl"), reader.ParamOf("ttl") + " must be \"5m\" or \"1h\""));
  }
  if (out->size() == kMaxBreakpoints) {
    return object.Fail(InvalidField(
        param, fmt::format("{} is one too many: a request may have {}", param, kMaxBreakpoints)));
  }
  out->push_back({messages, ttl == "1h" ? seconds(hours(1)) : kDefaultLifetime});
}

void ReadWholePromptRetention(FieldReader& body, std::vector<CacheBreakpoint>* out) {
  ReadCacheControl(body, kWholePrompt, out);
  ReadRetention(body, out);
}

ApiResult<PinFields> ParsePinFields(std::string_view text) {
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  PinFields fields{.is_chat = body.Find("messages") != nullptr, .lifetime = {}};
  if (fields.is_chat && body.Find("prompt") != nullptr) {
    body.Fail(InvalidField("prompt", "either messages or prompt must be given, not both"));
  }
  if (const Json* ttl = body.Find("ttl"); ttl != nullptr && body.ok()) {
    if (ttl->is_number()) {
      int64_t count = 1;
      body.IntegerValue(*ttl, "ttl", 1, kLongestPin.count(), &count);
      fields.lifetime = seconds(count);
    } else if (!ttl->is_string()) {
      body.FailType("ttl", "a number of seconds, or a string like \"5m\"", *ttl);
    } else if (!(fields.lifetime = ParseDuration(ttl->get_ref<const std::string&>()))) {
      body.Fail(InvalidField(
          "ttl", "ttl must be seconds, or like \"90s\", \"5m\", \"1h\"; at most 7 days"));
    }
  }
  if (!body.ok()) return body.error();
  return fields;
}

ApiResult<UnpinRequest> ParseUnpinRequest(std::string_view text) {
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  UnpinRequest request;
  std::string pin;
  bool all = false;
  body.String("pin", &pin);
  body.Bool("all", &all);
  if (body.ok() && pin.empty() != all) {
    body.Fail(InvalidField("pin", "either pin, or \"all\": true, must be given"));
  }
  if (!pin.empty()) {
    constexpr std::string_view kPrefix = "pin-";
    uint64_t id = 0;
    const char* digits = pin.data() + std::min(kPrefix.size(), pin.size());
    const auto [end, error] = std::from_chars(digits, pin.data() + pin.size(), id);
    const bool is_whole = error == std::errc() && end == pin.data() + pin.size();
    if (!pin.starts_with(kPrefix) || !is_whole) {
      body.Fail(InvalidField("pin", fmt::format("pin is \"{}\", which is no pin", Excerpt(pin))));
    }
    request.id = id;
  }
  if (!body.ok()) return body.error();
  return request;
}

}  // namespace trellis
