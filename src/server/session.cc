#include "server/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <optional>

#include "server/channel.h"

namespace trellis {
namespace {

using Parser = http::request_parser<http::string_body>;

void GiveId(HttpRequest& request) {
  request.set(kRequestIdHeader, RequestIdFrom(RequestIdOf(request)));
}

// What is known of one that could not be read: as many of its headers as came.
HttpRequest UnreadRequest(const Parser& parser) {
  HttpRequest request;
  request.base() = parser.get().base();
  request.version(11);
  request.keep_alive(false);
  GiveId(request);
  return request;
}

// The answer to what could not be read; nothing where nobody waits for one.
std::optional<ApiError> ErrorOfReading(const boost::system::error_code& error,
                                       const Server::Options& options) {
  if (error == http::error::body_limit) {
    return TransportError(413, "request_too_large",
                          fmt::format("the body is larger than {} bytes", options.max_body_bytes));
  }
  if (error == http::error::header_limit) {
    return TransportError(431, "headers_too_large", "the headers are too large");
  }
  // Everything else that Beast's parser objects to. That the bytes ended early is no one's fault.
  if (error == http::error::end_of_stream || error == http::error::partial_message ||
      error.category() != make_error_code(http::error::bad_method).category()) {
    return std::nullopt;
  }
  return TransportError(400, "bad_request", "not HTTP: " + error.message());
}

// To close with unread data makes the kernel reset the connection, and the client may lose the
// answer: so what it still sends is thrown away for a while.
net::awaitable<void> DiscardRest(Stream& stream) {
  boost::system::error_code error;
  stream.socket().shutdown(net::ip::tcp::socket::shutdown_send, error);
  stream.expires_after(std::chrono::seconds(5));
  std::array<char, 16384> scratch;
  while (!error) {
    co_await stream.async_read_some(net::buffer(scratch),
                                    net::redirect_error(net::use_awaitable, error));
  }
}

// Counted while it lives: the drain waits for it.
class ActiveRequest {
 public:
  explicit ActiveRequest(ServerState& state) : state_(state) { state_.active_requests++; }
  ~ActiveRequest() { state_.active_requests--; }
  ActiveRequest(const ActiveRequest&) = delete;
  ActiveRequest& operator=(const ActiveRequest&) = delete;

 private:
  ServerState& state_;
};

// Sets the caller's key, or says what is wrong with it.
std::optional<ApiError> ErrorOfKey(const HttpRequest& request, const ApiKeys& keys,
                                   Caller* caller) {
  if (keys.empty()) return std::nullopt;
  const std::string_view secret =
      SecretOf(HeaderOf(request, "authorization"), HeaderOf(request, "x-api-key"));
  caller->key = keys.Find(secret);
  // A browser's preflight carries no key.
  const bool is_open = IsPublic(request) || request.method() == http::verb::options;
  if (caller->key != nullptr || is_open) return std::nullopt;
  return ErrorFromStatus(Status(StatusCode::kUnauthenticated,
                                secret.empty()
                                    ? "a key is needed: send it as \"Authorization: Bearer KEY\""
                                    : "this key is none of this server's"));
}

// A page or a key that is wrong is known before the body, and then that is not read: `refused`.
net::awaitable<boost::system::error_code> ReadRequest(Stream& stream, beast::flat_buffer& buffer,
                                                      Parser& parser, const ServerState& state,
                                                      Caller& caller,
                                                      std::optional<ApiError>& refused) {
  boost::system::error_code error;
  stream.expires_after(state.options.idle_timeout);
  co_await http::async_read_header(stream, buffer, parser,
                                   net::redirect_error(net::use_awaitable, error));
  if (error) co_return error;
  refused = ErrorOfOrigin(HeaderOf(parser.get(), "origin"), HeaderOf(parser.get(), "host"),
                          state.options.origins);
  if (!refused) refused = ErrorOfKey(parser.get(), state.options.keys, &caller);
  if (refused) co_return error;
  if (!parser.is_done() && beast::iequals(parser.get()[http::field::expect], "100-continue") &&
      !co_await WriteText(stream, "HTTP/1.1 100 Continue\r\n\r\n", state)) {
    co_return make_error_code(http::error::end_of_stream);
  }
  stream.expires_after(state.options.idle_timeout);
  co_await http::async_read(stream, buffer, parser, net::redirect_error(net::use_awaitable, error));
  co_return error;
}

// What is wrong with the request whatever it asks for.
std::optional<ApiError> ErrorOfHeaders(const HttpRequest& request) {
  if (request.version() >= 11 && request.count(http::field::host) != 1) {  // RFC 9112, 3.2
    return TransportError(400, "bad_request", "an HTTP/1.1 request has one Host header");
  }
  const auto encoding = request[http::field::content_encoding];
  if (!encoding.empty() && !beast::iequals(encoding, "identity")) {
    return TransportError(
        415, "unsupported_media_type",
        fmt::format("Content-Encoding: {} is not supported: send the body as it is",
                    std::string_view(encoding.data(), encoding.size())));
  }
  return std::nullopt;
}

net::awaitable<bool> Answer(const HttpRequest& request, const Caller& caller, Stream& stream,
                            ServerState& state) {
  if (const auto error = ErrorOfHeaders(request)) {
    co_return co_await WriteReply(stream, request, ErrorReply(*error), state);
  }
  if (state.models != nullptr && IsGeneration(request)) {
    // The engine refuses too, but only once the drain has reached it.
    if (state.draining) {
      const Status stopping(StatusCode::kUnavailable,
                            "shutting down: no new requests are accepted");
      co_return co_await WriteReply(stream, request, ErrorReply(ErrorFromStatus(stopping)), state);
    }
    co_return co_await AnswerGeneration(request, caller, stream, state);
  }
  Reply reply;
  try {
    reply = co_await AnswerPlain(request, caller, stream, state);
  } catch (const std::exception& error) {
    reply = ErrorReply(InternalError(request, error));
  }
  co_return co_await WriteReply(stream, request, std::move(reply), state);
}

}  // namespace

std::string Caller::ScopeOf(const std::string& salt) const {
  // The length keeps a scope apart from another's with the beginning of a salt.
  return key == nullptr ? salt : fmt::format("{}:{}{}", key->scope.size(), key->scope, salt);
}

Reply ErrorReply(const ApiError& error) {
  return {.status = static_cast<unsigned>(error.http_status), .error = error};
}

ApiError InternalError(const HttpRequest& request, const std::exception& error) {
  spdlog::error("{} request={}: {}", PathOf(request), RequestIdOf(request), error.what());
  return ErrorFromStatus(
      Status(StatusCode::kInternal, "the server could not do this; its log says more"));
}

std::string_view PathOf(const HttpRequest& request) {
  std::string_view target(request.target().data(), request.target().size());
  // A proxy's form, http://host/path, is to be understood too (RFC 9112, 3.2.2).
  if (const size_t scheme = target.find("://");
      !target.starts_with('/') && scheme < target.size()) {
    const size_t path = target.find('/', scheme + 3);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  return target.substr(0, target.find('?'));
}

ErrorForm FormOf(const HttpRequest& request) {
  const std::string_view path = PathOf(request);
  if (path.starts_with("/api/")) return ErrorForm::kOllama;
  return path.starts_with("/v1/messages") ? ErrorForm::kAnthropic : ErrorForm::kOpenAi;
}

net::awaitable<void> RunOn(net::thread_pool& pool, const Work& work) {
  const auto run = [](const Work& w) -> net::awaitable<void> {
    w();
    co_return;
  };
  co_await net::co_spawn(pool, run(work), net::use_awaitable);
}

net::awaitable<void> WorkOnBody(const HttpRequest& request, Stream& stream, ServerState& state,
                                const Work& work) {
  // Up to here it costs less than about 10 ms, and need not wait behind the large ones.
  constexpr size_t kSmallBody = 16 * 1024;
  if (request.body().size() <= kSmallBody) {
    work();
    co_return;
  }
  const Work if_wanted = [&] {
    if (!state.stopped && !IsGone(stream)) work();
  };
  co_await RunOn(state.text, if_wanted);
}

net::awaitable<bool> WriteText(Stream& stream, std::string_view text, const ServerState& state) {
  while (!text.empty()) {
    boost::system::error_code error;
    stream.expires_after(state.options.write_timeout);
    const size_t written = co_await stream.async_write_some(
        net::buffer(text.data(), text.size()), net::redirect_error(net::use_awaitable, error));
    if (error) co_return false;
    text.remove_prefix(written);
  }
  co_return true;
}

net::awaitable<bool> WriteReply(Stream& stream, const HttpRequest& request, Reply reply,
                                const ServerState& state) {
  http::response<http::string_body> response{static_cast<http::status>(reply.status),
                                             request.version()};
  SetCommonHeaders(request, state, &response);
  if (!reply.content_type.empty()) response.set(http::field::content_type, reply.content_type);
  if (reply.status == 401) response.set(http::field::www_authenticate, "Bearer");
  if (reply.status == 503) response.set(http::field::retry_after, "1");
  if (!reply.allow.empty()) response.set(http::field::allow, reply.allow);
  for (const auto& [name, value] : reply.headers) response.insert(name, value);
  if (request.method() == http::verb::options) {
    const auto wanted = request[http::field::access_control_request_headers];
    response.set(http::field::access_control_allow_methods, "GET, POST, OPTIONS");
    response.set(http::field::access_control_allow_headers, wanted.empty() ? "*" : wanted);
  }
  response.keep_alive(request.keep_alive() && !state.draining);
  if (reply.error) reply.error->request_id = RequestIdOf(request);
  response.body() = reply.error ? ErrorBody(*reply.error, FormOf(request)) : std::move(reply.body);
  if (reply.status != 204 && reply.status != 304) response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();
  http::response_serializer<http::string_body> serializer{response};
  boost::system::error_code error;
  while (!error && !serializer.is_done()) {
    stream.expires_after(state.options.write_timeout);
    co_await http::async_write_some(stream, serializer,
                                    net::redirect_error(net::use_awaitable, error));
  }
  co_return !error && response.keep_alive();
}

net::awaitable<void> RunSession(Stream stream, ServerState& state) {
  Caller caller{.key = nullptr, .connection = state.connections++};
  beast::flat_buffer buffer;
  for (bool open = true; open;) {
    Parser parser;
    parser.body_limit(state.options.max_body_bytes);
    parser.header_limit(16 * 1024);
    std::optional<ApiError> refused;
    if (const auto error = co_await ReadRequest(stream, buffer, parser, state, caller, refused)) {
      if (const auto answer = ErrorOfReading(error, state.options)) {
        const HttpRequest unread = UnreadRequest(parser);
        co_await WriteReply(stream, unread, ErrorReply(*answer), state);
        co_await DiscardRest(stream);
      }
      break;
    }
    state.http_requests++;
    GiveId(parser.get());
    if (refused) {
      const bool has_body = !parser.is_done();
      parser.get().keep_alive(!has_body && parser.get().keep_alive());
      open = co_await WriteReply(stream, parser.get(), ErrorReply(*refused), state);
      if (has_body) co_await DiscardRest(stream);
      continue;
    }
    const HttpRequest request = parser.release();
    const ActiveRequest active(state);
    try {
      open = co_await Answer(request, caller, stream, state);
    } catch (const std::exception& error) {  // in the middle of an answer: there is no other way
      spdlog::error("{} request={}: {}", PathOf(request), RequestIdOf(request), error.what());
      open = false;
    }
  }
  boost::system::error_code ignored;
  stream.socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
}

}  // namespace trellis
