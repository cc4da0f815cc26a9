#include "server/origins.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <boost/beast/core/string.hpp>

namespace trellis {
namespace {

// "[::1]:8080" -> "::1".
std::string_view WithoutPort(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == host.npos ? host : host.substr(1, end - 1);
  }
  return host.substr(0, host.find(':'));
}

bool IsAddress(std::string_view host) {
  boost::system::error_code error;
  boost::asio::ip::make_address(std::string(host), error);
  return !error;
}

bool IsLocalName(std::string_view host) {
  return host == "localhost" || host.ends_with(".localhost");  // RFC 6761, 6.3
}

// Names are the same in large and small letters (RFC 4343).
bool IsOneOf(const std::vector<std::string>& names, std::string_view name) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& one) { return boost::beast::iequals(one, name); });
}

}  // namespace

bool IsLoopback(std::string_view host) {
  if (IsLocalName(host)) return true;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(std::string(host), error);
  return !error && address.is_loopback();
}

bool IsAllowedOrigin(std::string_view origin, std::string_view host, const OriginPolicy& policy) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (origin.starts_with(scheme) && origin.substr(scheme.size()) == host) return true;
  }
  return std::any_of(policy.allowed.begin(), policy.allowed.end(),
                     [&](const std::string& one) { return one == "*" || one == origin; });
}

std::optional<ApiError> ErrorOfOrigin(std::string_view origin, std::string_view host,
                                      const OriginPolicy& policy) {
  const std::string_view name = WithoutPort(host);
  if (policy.needs_local_host && !host.empty() && !IsAddress(name) && !IsLocalName(name) &&
      !IsOneOf(policy.hosts, name)) {
    return TransportError(
        403, "host_not_allowed",
        fmt::format("this server answers to its address, \"localhost\" and the names of "
                    "--allowed-hosts, not to \"{}\": add it there, or use keys (--api-key-file) to "
                    "have it answer to any name",
                    Excerpt(name)));
  }
  if (origin.empty() || IsAllowedOrigin(origin, host, policy)) return std::nullopt;
  return TransportError(
      403, "origin_not_allowed",
      fmt::format("pages of {} may not use this server (--cors)", Excerpt(origin)));
}

}  // namespace trellis
