// Which web pages may use the server. A browser lets every page send requests to this machine too,
// so it is asked before anything is done. Internal to server/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"

namespace trellis {

struct OriginPolicy {
  // Pages of other origins that may: "https://chat.example", or "*" for all. The server's own may.
  std::vector<std::string> allowed = {};
  // The Host header must be an address, "localhost" or one of `hosts`: a page can make a name of
  // its own point to this machine, and be of the server's origin by that (DNS rebinding). Other
  // names without a dot are no better: a network that says which domain they are searched in (DHCP)
  // has them point anywhere.
  bool needs_local_host = false;
  std::vector<std::string> hosts = {};  // without a port
};

// "localhost", and the addresses that only this machine reaches.
bool IsLoopback(std::string_view host);

// Whether what is answered is for the page to read. `host`, `origin`: the headers.
bool IsAllowedOrigin(std::string_view origin, std::string_view host, const OriginPolicy& policy);
// A 403, unless the request may be answered. An empty `origin` is no page's.
std::optional<ApiError> ErrorOfOrigin(std::string_view origin, std::string_view host,
                                      const OriginPolicy& policy);

}  // namespace trellis
