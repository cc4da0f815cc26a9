// One connection: reads requests, routes them, writes answers. Internal to server/.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <string>

#include "api/errors.h"
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
  Server::Options options;
  std::atomic<Service*> service{nullptr};
  LoadProgress progress;
  std::atomic<bool> draining{false};
  std::atomic<size_t> active_requests{0};
  std::atomic<uint64_t> http_requests{0};
};

struct Reply {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
};
Reply ErrorReply(const ApiError& error);

net::awaitable<void> RunSession(Stream stream, ServerState& state);

// Requests that need no engine step. `found` is false when the path is none of these.
Reply AnswerPlain(const HttpRequest& request, ServerState& state, bool* found);

// /v1/chat/completions and /v1/completions. False: the connection is to be closed.
net::awaitable<bool> AnswerGeneration(const HttpRequest& request, Service& service, Stream& stream,
                                      ServerState& state);

net::awaitable<bool> WriteReply(Stream& stream, const HttpRequest& request, Reply reply,
                                const ServerState& state);

}  // namespace trellis
