#include "server/session.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "server/channel.h"
#include "server/read_timer.h"

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
  if (error == beast::error::timeout) {
    return TransportError(408, "request_timeout",
                          fmt::format("the request did not arrive in time: its headers have {} s, "
                                      "its body {} s and a second more for each {} bytes",
                                      options.header_timeout.count(), options.body_timeout.count(),
                                      options.min_body_rate));
  }
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

constexpr size_t kLoggedBytes = 200;  // of a path and the like

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

// Sets the caller's key, or says what is wrong with it.
std::optional<ApiError> ErrorOfKey(const HttpRequest& request, const ServerState& state,
                                   Caller* caller) {
  const std::shared_ptr<const ApiKeys> keys = state.keys.Get();
  if (keys->empty()) return std::nullopt;
  const std::string_view secret =
      SecretOf(HeaderOf(request, "authorization"), HeaderOf(request, "x-api-key"));
  caller->key = {keys, keys->Find(secret)};  // keeps all of them
  // A browser's preflight carries no key.
  const bool is_open = IsPublic(request) || request.method() == http::verb::options;
  if (caller->key != nullptr || is_open) return std::nullopt;
  return ErrorFromStatus(Status(StatusCode::kUnauthenticated,
                                secret.empty()
                                    ? "a key is needed: send it as \"Authorization: Bearer KEY\""
                                    : "this key is none of this server's"));
}

// beast::error::timeout: they have not come in time, though something of them has.
net::awaitable<boost::system::error_code> ReadHeaders(Stream& stream, beast::flat_buffer& buffer,
                                                      Parser& parser,
                                                      const Server::Options& options) {
  constexpr size_t kFirstBytes = 512;
  boost::system::error_code error;
  ReadTimer timer(stream);
  if (buffer.size() == 0) {
    timer.Set(std::chrono::steady_clock::now() + options.idle_timeout);
    buffer.commit(co_await stream.async_read_some(buffer.prepare(kFirstBytes),
                                                  net::redirect_error(net::use_awaitable, error)));
    if (error) co_return error;
  }
  timer.Set(std::chrono::steady_clock::now() + options.header_timeout);
  co_await http::async_read_header(stream, buffer, parser,
                                   net::redirect_error(net::use_awaitable, error));
  if (timer.is_over()) error = beast::error::timeout;
  co_return error;
}

net::awaitable<boost::system::error_code> ReadBody(Stream& stream, beast::flat_buffer& buffer,
                                                   Parser& parser, const Server::Options& options) {
  boost::system::error_code error;
  ReadTimer timer(stream);
  const auto begun = std::chrono::steady_clock::now();
  parser.eager(true);
  while (!error && !parser.is_done()) {
    const std::chrono::seconds earned(parser.get().body().size() / options.min_body_rate);
    timer.Set(begun + options.body_timeout + earned);
    co_await http::async_read_some(stream, buffer, parser,
                                   net::redirect_error(net::use_awaitable, error));
  }
  if (timer.is_over()) error = beast::error::timeout;
  co_return error;
}

// A page or a key that is wrong is known before the body, and then that is not read: `refused`.
net::awaitable<boost::system::error_code> ReadRequest(Stream& stream, beast::flat_buffer& buffer,
                                                      Parser& parser, const ServerState& state,
                                                      Caller& caller,
                                                      std::optional<ApiError>& refused) {
  boost::system::error_code error = co_await ReadHeaders(stream, buffer, parser, state.options);
  if (error) co_return error;
  refused = ErrorOfOrigin(HeaderOf(parser.get(), "origin"), HeaderOf(parser.get(), "host"),
                          state.options.origins);
  if (!refused) refused = ErrorOfKey(parser.get(), state, &caller);
  if (refused) co_return error;
  if (!parser.is_done() && beast::iequals(parser.get()[http::field::expect], "100-continue") &&
      !co_await WriteText(stream, "HTTP/1.1 100 Continue\r\n\r\n", state)) {
    co_return make_error_code(http::error::end_of_stream);
  }
  co_return co_await ReadBody(stream, buffer, parser, state.options);
}

// What is wrong with the request whatever it asks for.
std::optional<ApiError> ErrorOfHeaders(const HttpRequest& request) {
  if (request.version() >= 11 && request.count(http::field::host) != 1) {  // RFC 9112, 3.2
    return TransportError(400, "bad_request", "an HTTP/1.1 request has one Host header");
  }
  const auto transfer = request[http::field::transfer_encoding];
  if (!transfer.empty() && !beast::iequals(transfer, "chunked")) {  // RFC 9112, 6.1
    return TransportError(501, "not_implemented", "of Transfer-Encoding only chunked is supported");
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

void LogException(const HttpRequest& request, const std::exception& error,
                  const ServerState& state) {
  state.log.Error("exception", {{"request_id", RequestIdOf(request)},
                                {"path", Excerpt(PathOf(request), kLoggedBytes)},
                                {"message", error.what()}});
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
    reply = ErrorReply(InternalError(request, error, state));
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

ApiError InternalError(const HttpRequest& request, const std::exception& error,
                       const ServerState& state) {
  LogException(request, error, state);
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

void LogError(const HttpRequest& request, const ApiError& error, const ServerState& state) {
  OrderedJson fields = {{"request_id", RequestIdOf(request)},
                        {"path", Excerpt(PathOf(request), kLoggedBytes)},
                        {"status", error.http_status},
                        {"code", error.code},
                        {"param", Excerpt(error.param, kLoggedBytes)}};
  if (error.http_status != 500) return state.log.Info("refused", fields);
  fields["message"] = error.message;
  state.log.Error("failed", fields);
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
  // Up to here it costs less than about 10 ms, and need not wait behind the large ones; but for
  // what stands for a whole chat.
  constexpr size_t kSmallBody = 4 * 1024;
  if (request.body().size() <= kSmallBody &&
      request.body().find("previous_response_id") == std::string::npos) {
    work();
    co_return;
  }
  const Work if_wanted = [&] {
    if (!state.stopped && !IsGone(stream)) work();
  };
  co_await RunOn(state.text, if_wanted);
}

// In which a client has to have read so many bytes.
std::chrono::milliseconds TimeToWrite(size_t bytes, const ServerState& state) {
  constexpr size_t kBytesPerSecond = 16 * 1024;  // as in ReadBody
  return state.options.write_timeout + std::chrono::seconds(bytes / kBytesPerSecond);
}

net::awaitable<bool> WriteText(Stream& stream, std::string_view text, const ServerState& state) {
  stream.expires_after(TimeToWrite(text.size(), state));
  while (!text.empty()) {
    boost::system::error_code error;
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
  if (reply.error) {
    reply.error->request_id = RequestIdOf(request);
    LogError(request, *reply.error, state);
  }
  response.body() = reply.error ? ErrorBody(*reply.error, FormOf(request)) : std::move(reply.body);
  if (reply.status != 204 && reply.status != 304) response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();
  http::response_serializer<http::string_body> serializer{response};
  boost::system::error_code error;
  stream.expires_after(TimeToWrite(response.body().size(), state));
  while (!error && !serializer.is_done()) {
    co_await http::async_write_some(stream, serializer,
                                    net::redirect_error(net::use_awaitable, error));
  }
  co_return !error && response.keep_alive();
}

net::awaitable<void> RunSession(Stream stream,
                                [[maybe_unused]] std::unique_ptr<Counted> open_connection,
                                ServerState& state) {
  Caller caller{.connection = state.connections++};
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
    const Counted active(state.active_requests);  // the drain waits for it
    try {
      open = co_await Answer(request, caller, stream, state);
    } catch (const std::exception& error) {  // in the middle of an answer: there is no other way
      LogException(request, error, state);
      open = false;
    }
  }
  boost::system::error_code ignored;
  stream.socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
}

}  // namespace trellis
