#include "server/page.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace trellis {
namespace {

// Everything is the server's own, and nothing may frame it. What a model writes is cleaned before
// it is shown; this is for what cleaning may miss.
constexpr std::string_view kContentSecurityPolicy =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

bool AcceptsGzip(const HttpRequest& request) {
  for (const auto& [coding, parameters] : http::ext_list(request[http::field::accept_encoding])) {
    if (!beast::iequals(coding, "gzip")) continue;
    // RFC 9110, 12.4.2: a weight of 0 is "not acceptable".
    return std::none_of(parameters.begin(), parameters.end(), [](const auto& parameter) {
      return beast::iequals(parameter.first, "q") &&
             parameter.second.find_first_not_of("0.") == beast::string_view::npos;
    });
  }
  return false;
}

bool Has(const HttpRequest& request, std::string_view etag) {
  const auto known = request[http::field::if_none_match];
  return known == "*" || std::string_view(known.data(), known.size()).find(etag) != known.npos;
}

}  // namespace

Reply PageReply(const HttpRequest& request) {
  const std::span<const PageFile> files = PageFiles();
  const std::string_view path = PathOf(request);
  const auto file = std::find_if(files.begin(), files.end(),
                                 [&](const PageFile& one) { return one.path == path; });
  if (file == files.end()) {
    return ErrorReply(TransportError(404, "not_found", fmt::format("the page has no {}", path)));
  }
  const bool is_gzipped = AcceptsGzip(request);
  const std::string etag = fmt::format("\"{}{}\"", file->hash, is_gzipped ? "-gzip" : "");
  Reply reply{.content_type = std::string(file->content_type)};
  reply.headers = {
      {"ETag", etag},
      {"Vary", "Accept-Encoding"},
      {"Cache-Control",
       path.starts_with(kPageAssets) ? "public, max-age=31536000, immutable" : "no-cache"},
      {"Content-Security-Policy", std::string(kContentSecurityPolicy)},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"}};
  if (Has(request, etag)) {
    reply.status = 304;
    return reply;
  }
  if (is_gzipped) reply.headers.emplace_back("Content-Encoding", "gzip");
  reply.body = is_gzipped ? file->gzipped : file->plain;
  return reply;
}

}  // namespace trellis
