// HttpClient: requests over HTTP and HTTPS, one at a time, by libcurl. Proxies and certificates are
// those that curl takes (https_proxy, no_proxy, SSL_CERT_FILE).
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace trellis {

// Not shared by threads.
class HttpClient {
 public:
  enum class Method { kGet, kHead, kPost };
  using Headers = std::map<std::string, std::string>;  // names in lower case

  struct Answer {
    int status = 0;
    // Those of redirects on the way too, if they begin with "x-"; the last of a name counts.
    Headers headers;
    std::string body;  // what on_body did not take, 32 MiB at most
    std::string url;   // where it came from, after redirects

    bool ok() const { return status >= 200 && status < 300; }
    const std::string& header(const std::string& name) const;  // empty: it is not there
  };

  struct Request {
    Method method = Method::kGet;
    std::string url;
    // "Authorization: Bearer". Goes to the scheme, host and port of `url` alone, never to where
    // these redirect to.
    std::string token = {};
    std::string json = {};                    // body of a POST
    size_t offset = 0;                        // of a GET: only what begins there (Range)
    std::string if_range = {};                // a strong ETag: all, if it is not this one any more
    std::chrono::seconds longest_silence{0};  // 0: it may be silent for ever
    std::function<bool()> is_cancelled = {};  // asked about once a second, and for each piece
    // A redirect with these headers is the answer, and is not followed.
    std::function<bool(const Headers&)> is_answer = {};
    // Gets the body of a success (2xx) as it comes, with what is known of the answer. What it
    // returns, if not ok, ends the transfer and is what Send returns. What it throws, Send throws.
    std::function<Status(const Answer& so_far, std::string_view bytes)> on_body = {};
  };

  HttpClient();
  ~HttpClient();

  // The answer, whatever its status. Up to ten redirects are followed, but none from https to
  // http.
  // ERRORS: kInvalidArgument (no URL of HTTP), kUnavailable (no connection, it broke off, or was
  // silent too long), kTooLarge (the body), kCancelled, and what on_body returned.
  Result<Answer> Send(const Request& request);

 private:
  struct Transfer;
  Status SendOnce(const Request& request, const std::string& token, Answer* answer);

  std::unique_ptr<void, void (*)(void*)> curl_;
};

// "https://host:port" of a URL, in lower case and with the port that the scheme implies; empty for
// what is no URL of HTTP.
std::string OriginOf(const std::string& url);

// `path` with all but letters, digits, "-._~" and "/" as %XX.
std::string PercentEncoded(std::string_view path);

// "https://host/path?key=secret" without what may be secret: user, password and query.
std::string WithoutSecrets(const std::string& url);

}  // namespace trellis
