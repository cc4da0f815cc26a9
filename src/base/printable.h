// Text from a file or a client, for a terminal or a log.
#pragma once

#include <string>
#include <string_view>

namespace trellis {

// With '?' for each byte of a control character other than a newline (C0, DEL, and C1 in UTF-8):
// some of them move a terminal's cursor, or do worse.
std::string Printable(std::string_view text);

}  // namespace trellis
