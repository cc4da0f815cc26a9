#include "server/session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <array>
#include <utility>

#include "api/requests.h"
#include "api/responses.h"

namespace trellis {
namespace {

constexpr const char* kVersion = "0.1.0";

Reply Json(std::string body) {
  return {.status = 200, .content_type = "application/json", .body = std::move(body)};
}

Reply Health(const ServerState& state) {
  if (state.service != nullptr) return Json(R"({"status":"ok"})");
  const size_t total = state.progress.total, done = state.progress.done;
  Reply reply = Json(fmt::format(
      R"({{"status":"loading","progress":{:.3f},"error":{{"code":503,"message":"Loading model","type":"unavailable_error"}}}})",
      total == 0 ? 0.0 : static_cast<double>(done) / static_cast<double>(total)));
  reply.status = 503;
  return reply;
}

Reply Models(const Service& service) {
  const ModelSpec& spec = service.model->spec();
  return Json(fmt::format(
      R"({{"object":"list","data":[{{"id":"{}","object":"model","created":{},"owned_by":"trellis","meta":{{"n_ctx":{},"n_ctx_train":{},"n_embd":{},"n_params":{},"n_vocab":{},"size":{}}}}}]}})",
      service.model_name, service.created, service.engine->context_size(), spec.context_length,
      spec.embedding_length, spec.num_parameters, spec.vocab_size, spec.file_bytes));
}

Reply Cache(const Service& service) {
  const PageCacheStats s = service.engine->CacheStats();
  return Json(fmt::format(
      R"({{"pages":{{"capacity":{},"free":{},"private":{},"committed":{},"pinned":{}}},"page_tokens":{},"page_bytes":{},"nodes":{},"leases":{},"scopes":{},"tree_bytes":{},"lookups":{},"tokens_looked_up":{},"tokens_matched":{},"pages_evicted":{},"rows_copied":{},"pages_deduplicated":{}}})",
      s.capacity, s.free, s.private_pages, s.committed, s.pinned, kPageTokens, s.page_bytes,
      s.num_nodes, s.num_leases, s.num_scopes, s.tree_bytes, s.lookups, s.tokens_looked_up,
      s.tokens_matched, s.pages_evicted, s.rows_copied, s.pages_deduplicated));
}

// https://prometheus.io/docs/instrumenting/exposition_formats/
Reply Metrics(const Service& service, const ServerState& state) {
  const EngineStats e = service.engine->Stats();
  const PageCacheStats c = service.engine->CacheStats();
  std::string out;
  const auto metric = [&out](const char* name, const char* type, uint64_t value) {
    out += fmt::format("# TYPE trellis_{0} {1}\ntrellis_{0} {2}\n", name, type, value);
  };
  metric("http_requests_total", "counter", state.http_requests);
  metric("requests_total", "counter", e.requests_total);
  metric("requests_cancelled_total", "counter", e.cancelled_total);
  metric("requests_failed_total", "counter", e.failed_total);
  metric("requests_waiting", "gauge", e.waiting);
  metric("requests_running", "gauge", e.running);
  metric("preemptions_total", "counter", e.preemptions_total);
  metric("prompt_tokens_total", "counter", e.prompt_tokens_total);
  metric("cached_tokens_total", "counter", e.cached_tokens_total);
  metric("computed_tokens_total", "counter", e.computed_tokens_total);
  metric("generated_tokens_total", "counter", e.generated_tokens_total);
  metric("steps_total", "counter", e.steps_total);
  metric("cache_pages_capacity", "gauge", c.capacity);
  metric("cache_pages_free", "gauge", c.free);
  metric("cache_pages_private", "gauge", c.private_pages);
  metric("cache_pages_committed", "gauge", c.committed);
  metric("cache_pages_pinned", "gauge", c.pinned);
  metric("cache_page_bytes", "gauge", c.page_bytes);
  metric("cache_pages_evicted_total", "counter", c.pages_evicted);
  return {.status = 200, .content_type = "text/plain; version=0.0.4", .body = std::move(out)};
}

Reply TokenizeText(const std::string& body, const Service& service) {
  ApiResult<TokenizeRequest> request = ParseTokenizeRequest(body);
  if (!request.ok()) return ErrorReply(request.error());
  const TokenizeRequest& r = request.value();
  const auto special = r.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText;
  const auto tokens = service.tokenizer->Encode(
      r.content, r.add_special ? AddSpecial::kByVocabulary : AddSpecial::kNo, special);
  if (!r.with_pieces) return Json(TokenizeJson(tokens));
  std::vector<TokenPiece> pieces;
  for (TokenId token : tokens)
    pieces.push_back({token, service.tokenizer->Piece(token, SpecialTokens::kParse)});
  return Json(TokenizeWithPiecesJson(pieces));
}

Reply DetokenizeTokens(const std::string& body, const Service& service) {
  ApiResult<std::vector<TokenId>> tokens = ParseDetokenizeRequest(body);
  if (!tokens.ok()) return ErrorReply(tokens.error());
  for (TokenId token : tokens.value()) {
    if (token < 0 || static_cast<size_t>(token) >= service.tokenizer->vocab_size()) {
      return ErrorReply(
          InvalidField("tokens", fmt::format("token {} is not in the vocabulary", token)));
    }
  }
  return Json(DetokenizeJson(service.tokenizer->Decode(tokens.value(), SpecialTokens::kParse)));
}

struct Route {
  std::string_view path;
  http::verb verb;
};
constexpr std::array<Route, 10> kRoutes = {{{"/health", http::verb::get},
                                            {"/version", http::verb::get},
                                            {"/v1/models", http::verb::get},
                                            {"/metrics", http::verb::get},
                                            {"/v1/cache", http::verb::get},
                                            {"/v1/cache/reset", http::verb::post},
                                            {"/tokenize", http::verb::post},
                                            {"/detokenize", http::verb::post},
                                            {"/v1/chat/completions", http::verb::post},
                                            {"/v1/completions", http::verb::post}}};

std::string PathOf(const HttpRequest& request) {
  const auto target = request.target();
  return std::string(target.substr(0, target.find('?')));
}

bool IsGeneration(const std::string& path) {
  return path == "/v1/chat/completions" || path == "/v1/completions";
}

net::awaitable<bool> Answer(const HttpRequest& request, Stream& stream, ServerState& state) {
  const std::string path = PathOf(request);
  for (const Route& route : kRoutes) {
    if (route.path != path) continue;
    const bool head = request.method() == http::verb::head && route.verb == http::verb::get;
    if (request.method() == route.verb || head) break;
    co_return co_await WriteReply(
        stream, request,
        ErrorReply(TransportError(405, "method_not_allowed",
                                  fmt::format("{} is served for another method", path))),
        state);
  }
  Service* service = state.service;
  if (service != nullptr && IsGeneration(path))
    co_return co_await AnswerGeneration(request, *service, stream, state);
  bool found = false;
  Reply reply = AnswerPlain(request, state, &found);
  if (!found)
    reply =
        ErrorReply(TransportError(404, "not_found", fmt::format("there is nothing at {}", path)));
  co_return co_await WriteReply(stream, request, std::move(reply), state);
}

}  // namespace

Reply ErrorReply(const ApiError& error) {
  return {.status = static_cast<unsigned>(error.http_status),
          .content_type = "application/json",
          .body = ErrorBody(error)};
}

Reply AnswerPlain(const HttpRequest& request, ServerState& state, bool* found) {
  const std::string path = PathOf(request);
  *found = false;
  for (const Route& route : kRoutes) *found |= route.path == path;
  if (path == "/health") return Health(state);
  if (path == "/version") return Json(fmt::format(R"({{"version":"{}"}})", kVersion));
  const Service* service = state.service;
  if (service == nullptr) {
    return ErrorReply(
        TransportError(503, "model_loading", "the model is still loading; see /health"));
  }
  if (path == "/v1/models") return Models(*service);
  if (path == "/metrics") return Metrics(*service, state);
  if (path == "/v1/cache") return Cache(*service);
  if (path == "/tokenize") return TokenizeText(request.body(), *service);
  if (path == "/detokenize") return DetokenizeTokens(request.body(), *service);
  if (path == "/v1/cache/reset") {
    service->engine->ResetCache();
    return Json(R"({"status":"ok"})");
  }
  return {};
}

net::awaitable<bool> WriteReply(Stream& stream, const HttpRequest& request, Reply reply,
                                const ServerState& state) {
  http::response<http::string_body> response{static_cast<http::status>(reply.status),
                                             request.version()};
  response.set(http::field::server, "trellis");
  response.set(http::field::content_type, reply.content_type);
  if (reply.status == 503) response.set(http::field::retry_after, "1");
  response.keep_alive(request.keep_alive() && !state.draining);
  response.body() = std::move(reply.body);
  response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();
  stream.expires_after(state.options.write_timeout);
  boost::system::error_code error;
  co_await http::async_write(stream, response, net::redirect_error(net::use_awaitable, error));
  co_return !error && response.keep_alive();
}

net::awaitable<void> RunSession(Stream stream, ServerState& state) {
  beast::flat_buffer buffer;
  for (bool open = true; open;) {
    http::request_parser<http::string_body> parser;
    parser.body_limit(state.options.max_body_bytes);
    parser.header_limit(16 * 1024);
    stream.expires_after(state.options.idle_timeout);
    boost::system::error_code error;
    co_await http::async_read(stream, buffer, parser,
                              net::redirect_error(net::use_awaitable, error));
    if (error == http::error::body_limit || error == http::error::header_limit) {
      HttpRequest none;
      none.version(11);
      none.keep_alive(false);
      const bool body = error == http::error::body_limit;
      co_await WriteReply(
          stream, none,
          ErrorReply(body ? TransportError(413, "request_too_large",
                                           fmt::format("the body is larger than {} bytes",
                                                       state.options.max_body_bytes))
                          : TransportError(431, "headers_too_large", "the headers are too large")),
          state);
      break;
    }
    if (error == http::error::end_of_stream || error == beast::error::timeout ||
        error == net::error::connection_reset || error == http::error::partial_message) {
      break;
    }
    if (error) {
      HttpRequest none;
      none.version(11);
      none.keep_alive(false);
      co_await WriteReply(
          stream, none,
          ErrorReply(TransportError(400, "bad_request", "not HTTP: " + error.message())), state);
      break;
    }
    const HttpRequest request = parser.release();
    state.http_requests++;
    state.active_requests++;
    open = co_await Answer(request, stream, state);
    state.active_requests--;
  }
  boost::system::error_code ignored;
  stream.socket().shutdown(net::ip::tcp::socket::shutdown_both, ignored);
}

}  // namespace trellis
