// Requests to servers that may be busy: sent again after a while.
#pragma once

#include <functional>
#include <string>

#include "hub/http_client.h"

namespace trellis {

struct Patience {
  std::function<bool()> is_cancelled;            // ends the waiting
  std::function<void(const std::string&)> warn;  // gets a line: what went wrong, and that it waits
};

// Sends what `make` makes, and again, up to five times without a new byte of a body, when the
// server says that it is busy (408, 429, 5xx) or a connection that had given bytes breaks off. It
// waits as long as the server asks (Retry-After, up to five minutes), else a second, two, four, ...
// The answer is a success or one that would not change.
// ERRORS: those of HttpClient::Send; kUnavailable: it stayed busy.
Result<HttpClient::Answer> SendPatiently(HttpClient& client, const Patience& patience,
                                         const std::function<HttpClient::Request()>& make);

// An answer that is no success, with the server's own words: kUnauthenticated (401, 403), kNotFound
// (404), else kUnavailable.
Status ErrorOf(const HttpClient::Answer& answer);

}  // namespace trellis
