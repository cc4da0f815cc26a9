// The target of a request: its path and its query. Internal to server/.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/errors.h"
#include "server/session.h"

namespace trellis {

// Without percent-encoding (RFC 3986, 2.1); what is none stays as it is.
std::string PercentDecoded(std::string_view text);

// The value of the first parameter `name` in the query, decoded as forms encode it: + is a space.
std::optional<std::string> QueryValue(const HttpRequest& request, std::string_view name);

// The same for a whole number from `low` to `high`; `absent` where there is none.
ApiResult<uint64_t> QueryNumber(const HttpRequest& request, std::string_view name, uint64_t low,
                                uint64_t high, uint64_t absent);

}  // namespace trellis
