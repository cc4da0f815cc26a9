// Ids that nobody can guess, and which one a request goes by. Internal to server/.
#pragma once

#include <string>
#include <string_view>

namespace trellis {

// The header that clients may send one in, and that every answer has.
inline constexpr std::string_view kRequestIdHeader = "x-request-id";

// `prefix` and 64 random bits.
std::string RandomId(std::string_view prefix);

// `wanted`, the client's own, if it may stand in a header, a line of the log and a JSON text as it
// is: 1 to 128 letters, digits and "-_.:/+=@". Else a new one.
std::string RequestIdFrom(std::string_view wanted);

}  // namespace trellis
