// One connection: reads requests, routes them, writes answers. Internal to server/.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/errors.h"
#include "server/api_keys.h"
#include "server/model_pool.h"
#include "server/request_id.h"
#include "server/response_store.h"
#include "server/server.h"

namespace trellis {

namespace net = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

// A strand's own executor, so that sinks can post to the connection.
using Stream = beast::basic_stream<net::ip::tcp, net::strand<net::io_context::executor_type>>;
using HttpRequest = http::request<http::string_body>;

// What all connections share.
struct ServerState {
  explicit ServerState(const Server::Options& o) : options(o), log(o.log_format), keys(o.keys) {}

  const Server::Options options;
  const Log log;
  CurrentKeys keys;
  std::atomic<ModelPool*> models{nullptr};
  ResponseStore responses;
  LoadProgress progress;
  std::atomic<bool> draining{false};
  std::atomic<bool> stopped{false};  // the drain is over: nobody waits for anything any more
  std::atomic<size_t> active_requests{0};
  std::atomic<uint64_t> http_requests{0}, connections{0};
  std::atomic<size_t> open_connections{0};
  net::thread_pool blocking{1};  // for what may wait for the engine
  net::thread_pool text{2};      // for parsing, templates and tokenizing of large bodies
};

// What runs elsewhere for a coroutine, which keeps it while it waits. Give it a name: g++ 12
// destroys temporaries of a co_await twice.
using Work = std::function<void()>;
// Runs `work` on a thread of `pool` instead of one that others' streams need; throws what it
// throws.
net::awaitable<void> RunOn(net::thread_pool& pool, const Work& work);
// `work` does something with the whole body: at once, or on `state.text` if it is large. Not at all
// when the server has stopped or the client has left by the time it is its turn.
net::awaitable<void> WorkOnBody(const HttpRequest& request, Stream& stream, ServerState& state,
                                const Work& work);

// Who asks.
struct Caller {
  std::shared_ptr<const ApiKey> key = {};  // null: there are no keys
  uint64_t connection = 0;                 // its number

  // Where what it computes is cached.
  std::string ScopeOf(const std::string& salt) const;
  // Whether text that is cached under `salt` is for its eyes only: without a salt or a key a scope
  // is everybody's.
  bool OwnsScope(const std::string& salt) const { return key != nullptr || !salt.empty(); }
  // Of its key; empty where there are none.
  std::string tenant() const { return key == nullptr ? "" : key->secret; }
  bool is_admin() const { return key == nullptr || key->role == Role::kAdmin; }
};

struct Reply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::string allow = {};              // the Allow header of a 405
  std::optional<ApiError> error = {};  // then `body` is it, in the form of the API that was asked
  std::vector<std::pair<std::string_view, std::string>> headers = {};  // more of them
};
Reply ErrorReply(const ApiError& error);
// After an exception, which is out of memory or a bug: this request's alone.
ApiError InternalError(const HttpRequest& request, const std::exception& error,
                       const ServerState& state);

// A line about an answer that is an error. What the client is told may have its own text in it, so
// only of a failure of ours is the message there.
void LogError(const HttpRequest& request, const ApiError& error, const ServerState& state);

// Counts one while it lives.
class Counted {
 public:
  explicit Counted(std::atomic<size_t>& count) : count_(count) { count_++; }
  ~Counted() { count_--; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;

 private:
  std::atomic<size_t>& count_;
};

// `open_connection` is let go of when it ends.
net::awaitable<void> RunSession(Stream stream, std::unique_ptr<Counted> open_connection,
                                ServerState& state);

// Empty where there is none.
inline std::string_view HeaderOf(const HttpRequest& request, std::string_view name) {
  const auto value = request[name];
  return {value.data(), value.size()};
}
// Without the query.
std::string_view PathOf(const HttpRequest& request);
// How the API whose path it is says what went wrong.
ErrorForm FormOf(const HttpRequest& request);
// Its own, or what RunSession has given it; stands in its x-request-id.
inline std::string_view RequestIdOf(const HttpRequest& request) {
  return HeaderOf(request, kRequestIdHeader);
}

// Requests that need no engine step; also what is wrong with the path or the method of any request.
net::awaitable<Reply> AnswerPlain(const HttpRequest& request, const Caller& caller, Stream& stream,
                                  ServerState& state);
// Whether it is answered to those who have no key, too.
bool IsPublic(const HttpRequest& request);

// All there are; a path that ends in a slash, but for "/", stands for all that begin so.
std::vector<std::pair<http::verb, std::string_view>> Routes();

// Whether it is for AnswerGeneration: answers, and prompts to be computed ahead of time.
bool IsGeneration(const HttpRequest& request);
// False: the connection is to be closed.
net::awaitable<bool> AnswerGeneration(const HttpRequest& request, const Caller& caller,
                                      Stream& stream, ServerState& state);

// --- Writing. False: the connection is to be closed. ---

net::awaitable<bool> WriteReply(Stream& stream, const HttpRequest& request, Reply reply,
                                const ServerState& state);
// A whole text. A client may be slow, but has to take something within the write timeout.
net::awaitable<bool> WriteText(Stream& stream, std::string_view text, const ServerState& state);
// The headers that every answer has.
template <typename Body>
void SetCommonHeaders(const HttpRequest& request, const ServerState& state,
                      http::response<Body>* response) {
  response->set(http::field::server, "trellis");
  response->set(kRequestIdHeader, RequestIdOf(request));
  // What Anthropic's clients read.
  if (FormOf(request) == ErrorForm::kAnthropic) response->set("request-id", RequestIdOf(request));
  const std::string_view origin = HeaderOf(request, "origin");
  if (origin.empty()) return;
  response->set(http::field::vary, "Origin");
  if (IsAllowedOrigin(origin, HeaderOf(request, "host"), state.options.origins)) {
    response->set(http::field::access_control_allow_origin, origin);
    response->set(http::field::access_control_expose_headers, "x-request-id, request-id");
  }
}

}  // namespace trellis
