// JSON text <-> nlohmann values, for api/ and the reports that server/ writes.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace trellis {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  // keeps the order in which fields were added

// Deep enough for any request that means something, and far from where recursion would hurt.
inline constexpr size_t kMaxJsonDepth = 64;

// Any JSON value. ERRORS: 400 saying at which byte the text stops being JSON (or UTF-8), or that it
// is nested deeper than kMaxJsonDepth, found before it is parsed. Never throws.
ApiResult<Json> ParseJson(std::string_view text);

// Compact text. Bytes that are no UTF-8 become U+FFFD: the output is always valid JSON.
std::string ToText(const OrderedJson& value);

// The value of the member `name` of the object that `text` is, as it is written there: parsing
// forgets the order of members. Of several the last, which parsing keeps too; empty when there is
// none. REQUIRES: ParseJson(text) gives an object.
std::string_view RawMember(std::string_view text, std::string_view name);

// The same of the elements of the array that `text` is.
std::vector<std::string_view> RawElements(std::string_view text);

// How deep objects and arrays are nested, without parsing: right for JSON text, and for any other
// text at least as deep as a parser can get before it notices.
size_t NestingDepth(std::string_view text);

// `text` with U+FFFD for what is no UTF-8.
std::string ValidUtf8(std::string_view text);
bool IsValidUtf8(std::string_view text);

}  // namespace trellis
