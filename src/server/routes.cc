// Everything but the generation of text: one function for each path.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "api/json_text.h"
#include "api/requests.h"
#include "api/responses.h"
#include "server/cache_tree.h"
#include "server/deadline.h"
#include "server/job.h"
#include "server/metrics.h"
#include "server/model_wait.h"
#include "server/ollama.h"
#include "server/page.h"
#include "server/request_list.h"
#include "server/session.h"
#include "server/target.h"
#include "server/unix_time.h"

namespace trellis {
namespace {

Reply Json(const OrderedJson& value) {
  return {.body = ToText(value)};
}

ApiError ModelIsLoading() {
  return ErrorFromStatus(
      Status(StatusCode::kUnavailable, "the model is still loading: /health says how far"));
}

Reply NothingAt(const HttpRequest& request) {
  return ErrorReply(
      TransportError(404, "not_found", fmt::format("there is nothing at {}", PathOf(request))));
}

struct Call {
  const HttpRequest& request;
  const Caller& caller;
  ServerState& state;
  ModelPool* models;  // null while loading, but for routes that need it
  Service* service;   // of the model that the request names, for routes that need it
};

Reply Health(const Call& call) {
  if (call.models != nullptr) return Json({{"status", "ok"}});
  const size_t total = call.state.progress.total, done = call.state.progress.done;
  const double progress = total == 0 ? 0.0 : static_cast<double>(done) / static_cast<double>(total);
  // llama-server's form of this error, whose code is a number.
  Reply reply = Json(
      {{"status", "loading"},
       {"progress", progress},
       {"error", {{"code", 503}, {"message", "Loading model"}, {"type", "unavailable_error"}}}});
  reply.status = 503;
  return reply;
}

Reply Version(const Call&) {
  return Json({{"version", TRELLIS_VERSION}});
}

OrderedJson ModelObject(const ListedModel& model) {
  const ModelSpec& spec = model.info.spec;
  // llama-server's words.
  OrderedJson status = {{"value", "unloaded"}};
  if (model.state == ListedModel::State::kLoaded) status = {{"value", "loaded"}};
  if (model.state == ListedModel::State::kLoading)
    status = {{"value", "loading"}, {"progress", model.progress}};
  return {{"id", model.info.name},
          {"object", "model"},
          {"created", model.info.created},
          {"owned_by", "trellis"},
          {"status", std::move(status)},
          {"meta",
           {{"n_ctx", model.info.context_size},
            {"n_ctx_train", spec.context_length},
            {"n_embd", spec.embedding_length},
            {"n_params", spec.num_parameters},
            {"n_vocab", spec.vocab_size},
            {"size", spec.file_bytes}}}};
}

Reply Models(const Call& call) {
  const Result<std::vector<ListedModel>> models = call.models->List();
  if (!models.ok()) return ErrorReply(ErrorFromStatus(models.status()));
  OrderedJson list = OrderedJson::array();
  for (const ListedModel& model : *models) list.push_back(ModelObject(model));
  return Json({{"object", "list"}, {"data", std::move(list)}});
}

constexpr std::string_view kModelPath = "/v1/models/";

Reply OneModel(const Call& call) {
  const std::string name = PercentDecoded(PathOf(call.request).substr(kModelPath.size()));
  if (name.empty()) {
    return ErrorReply(ErrorOfModel(Status(
        StatusCode::kNotFound, "the path ends where a model's name should be: GET /v1/models")));
  }
  const Result<ModelInfo> found = call.models->Find(name);
  if (!found.ok()) return ErrorReply(ErrorOfModel(found.status()));
  const Result<std::vector<ListedModel>> models = call.models->List();
  if (!models.ok()) return ErrorReply(ErrorFromStatus(models.status()));
  for (const ListedModel& model : *models) {
    if (model.info.name == found->name) return Json(ModelObject(model));
  }
  return Json(ModelObject({.info = *found}));
}

Reply Cache(const Call& call) {
  const PageCacheStats s = call.service->engine->CacheStats();
  const EngineStats engine = call.service->engine->Stats();
  return Json({{"pages",
                {{"capacity", s.capacity},
                 {"free", s.free},
                 {"private", s.private_pages},
                 {"committed", s.committed},
                 {"pinned", s.pinned}}},
               {"page_tokens", kPageTokens},
               {"page_bytes", s.page_bytes},
               {"bytes", s.capacity * s.page_bytes},
               {"used_bytes", (s.capacity - s.free) * s.page_bytes},
               {"pins",
                {{"count", engine.pins},
                 {"pages", engine.pinned_pages},
                 {"max_pages", engine.max_pinned_pages}}},
               {"nodes", s.num_nodes},
               {"leases", s.num_leases},
               {"scopes", s.num_scopes},
               {"tree_bytes", s.tree_bytes},
               {"lookups", s.lookups},
               {"tokens_looked_up", s.tokens_looked_up},
               {"tokens_matched", s.tokens_matched},
               {"pages_evicted", s.pages_evicted},
               {"rows_copied", s.rows_copied},
               {"pages_deduplicated", s.pages_deduplicated}});
}

Reply CacheTree(const Call& call) {
  return CacheTreeReply(call.request, call.caller, *call.service);
}

Reply Requests(const Call& call) {
  return RequestListReply(call.request, call.caller, *call.service);
}

// Public, as a browser that asks for a page has no key to send: the page asks for it.
Reply Page(const Call& call) {
  if (call.state.options.has_page) return PageReply(call.request);
  return NothingAt(call.request);
}

// Public too: it is the same in every server of this version.
Reply Description(const Call& call) {
  return PageReply(call.request);
}

Reply ResetCache(const Call& call) {
  if (!call.caller.is_admin()) {
    return ErrorReply(
        TransportError(403, "admin_key_needed",
                       "the cache is everybody's: to reset it takes a key with \"admin\""));
  }
  ApiResult<std::string> name = ModelNameOf(call.request);
  if (!name.ok()) return ErrorReply(name.error());
  if (name.value().empty()) {
    for (const ModelLease& model : call.models->LookAtAll()) model->engine->ResetCache();
    return Json({{"status", "ok"}});
  }
  ApiResult<ModelLease> model = LookAtModel(call.request, call.state);
  if (!model.ok()) return ErrorReply(model.error());
  model.value()->engine->ResetCache();
  return Json({{"status", "ok"}});
}

Reply Metrics(const Call& call) {
  const std::vector<ModelLease> models = call.models->LookAtAll();
  std::vector<ModelMetrics> metrics;
  for (const ModelLease& model : models) {
    metrics.push_back({.model = call.models->has_many() ? model->model_name : "",
                       .engine = model->engine->Stats(),
                       .cache = model->engine->CacheStats(),
                       .requests = model->metrics});
  }
  return Reply{.content_type = "text/plain; version=0.0.4; charset=utf-8",
               .body = MetricsText(metrics, call.state.http_requests)};
}

Reply Tokenize(const Call& call) {
  ApiResult<TokenizeRequest> request = ParseTokenizeRequest(call.request.body());
  if (!request.ok()) return ErrorReply(request.error());
  const TokenizeRequest& r = request.value();
  const Tokenizer& tokenizer = *call.service->tokenizer;
  constexpr size_t kMaxBytes = 8 << 20;  // a hundred times that is in memory meanwhile
  if (r.content.size() > kMaxBytes) {
    return ErrorReply(TransportError(
        413, "request_too_large",
        fmt::format("content has {} bytes; at most {} are taken", r.content.size(), kMaxBytes)));
  }
  const auto tokens =
      tokenizer.Encode(r.content, r.add_special ? AddSpecial::kByVocabulary : AddSpecial::kNo,
                       r.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText);
  if (!r.with_pieces) return Reply{.body = TokenizeJson(tokens)};
  std::vector<TokenPiece> pieces;
  for (TokenId token : tokens)
    pieces.push_back({token, tokenizer.Piece(token, SpecialTokens::kParse)});
  return Reply{.body = TokenizeWithPiecesJson(pieces)};
}

Reply Detokenize(const Call& call) {
  ApiResult<std::vector<TokenId>> tokens = ParseDetokenizeRequest(call.request.body());
  if (!tokens.ok()) return ErrorReply(tokens.error());
  const Tokenizer& tokenizer = *call.service->tokenizer;
  constexpr size_t kMaxTokens = 1 << 18;  // of 256 spaces each they are 64 MiB of text
  if (tokens.value().size() > kMaxTokens) {
    return ErrorReply(TransportError(413, "request_too_large",
                                     fmt::format("tokens has {} entries; at most {} are taken",
                                                 tokens.value().size(), kMaxTokens)));
  }
  for (size_t i = 0; i < tokens.value().size(); i++) {
    const TokenId token = tokens.value()[i];
    if (static_cast<size_t>(token) >= tokenizer.vocab_size()) {
      return ErrorReply(InvalidField(fmt::format("tokens[{}]", i),
                                     fmt::format("token {} is not in the vocabulary", token)));
    }
  }
  return Reply{.body = DetokenizeJson(tokenizer.Decode(tokens.value(), SpecialTokens::kParse))};
}

Reply Unpin(const Call& call) {
  ApiResult<UnpinRequest> request = ParseUnpinRequest(call.request.body());
  if (!request.ok()) return ErrorReply(request.error());
  std::optional<PinId> pin;
  if (request.value().id) pin = PinId(*request.value().id);
  const size_t num_ended = call.service->engine->Unpin(call.caller.tenant(), pin);
  if (pin && num_ended == 0) {
    return ErrorReply(TransportError(404, "not_found", "there is no such pin: it may have ended"));
  }
  return Json({{"unpinned", num_ended}});
}

// Those of the key; of all where it may see everybody's cache. An owner is a secret.
Reply Pins(const Call& call) {
  OrderedJson list = OrderedJson::array();
  for (const PinTable::View& pin : call.service->engine->Pins()) {
    const bool is_own = pin.owner == call.caller.tenant();
    if (!is_own && !call.caller.is_admin()) continue;
    list.push_back({{"pin", fmt::format("pin-{}", pin.id.value())},
                    {"own", is_own},
                    {"tokens", pin.num_pages * kPageTokens},
                    {"pages", pin.num_pages},
                    {"expires_at", UnixSeconds(pin.expires)}});
  }
  return Json({{"pins", std::move(list)}});
}

// llama-server's. It has slots; here as many requests run as there is memory for.
Reply Props(const Call& call) {
  const Service& service = *call.service;
  const Tokenizer& tokenizer = *service.tokenizer;
  const auto piece = [&](TokenId token) {
    return token < 0 ? "" : tokenizer.Piece(token, SpecialTokens::kParse);
  };
  return Json({{"default_generation_settings", {{"n_ctx", service.engine->context_size()}}},
               {"total_slots", service.engine->max_running()},
               {"model_alias", service.model_name},
               {"chat_template", tokenizer.chat_template()},
               {"bos_token", piece(tokenizer.bos())},
               {"eos_token", piece(tokenizer.eos())},
               {"build_info", "trellis " TRELLIS_VERSION}});
}

Reply ApplyTemplate(const Call& call) {
  ApiResult<std::string> prompt = ChatPromptText(call.request.body(), *call.service);
  if (!prompt.ok()) return ErrorReply(prompt.error());
  return Json({{"prompt", prompt.value()}});
}

Reply Tags(const Call& call) {
  return OllamaTags(*call.models);
}
Reply Ps(const Call& call) {
  return OllamaPs(*call.models);
}
Reply Show(const Call& call) {
  return OllamaShow(call.request.body(), *call.models);
}

Reply CountTokens(const Call& call) {
  ApiResult<size_t> count = CountPromptTokens(call.request.body(), *call.service);
  if (!count.ok()) return ErrorReply(count.error());
  return Json({{"input_tokens", count.value()}});
}

// AnswerGeneration writes these itself, except while there is no model.
Reply Generate(const Call&) {
  return ErrorReply(ModelIsLoading());
}

enum class Needs {
  kNothing,  // public
  kModels,   // that the server knows which there are
  kLoaded,   // a model that is loaded, as it only looks
  kModel,    // a model, which is loaded for that
};
// What may take longer than others' streams can wait does not run on their thread.
enum class Works { kQuickly, kForTheEngine, kOnTheBody, kOnFiles };  // files: of several models
struct Route {
  std::string_view path;  // whole; its beginning if it ends in a slash (but for / itself)
  http::verb verb;
  Reply (*answer)(const Call&);
  Needs needs = Needs::kModels;
  Works works = Works::kQuickly;
};
constexpr std::array<Route, 36> kRoutes = {{
    {"/", http::verb::get, Page, Needs::kNothing},
    {kPageAssets, http::verb::get, Page, Needs::kNothing},
    {kDescription, http::verb::get, Description, Needs::kNothing},
    {"/health", http::verb::get, Health, Needs::kNothing},
    {"/version", http::verb::get, Version, Needs::kNothing},
    {"/v1/models", http::verb::get, Models, Needs::kModels, Works::kOnFiles},
    {kModelPath, http::verb::get, OneModel, Needs::kModels, Works::kOnFiles},
    {"/metrics", http::verb::get, Metrics},
    {"/v1/cache", http::verb::get, Cache, Needs::kLoaded},
    {"/v1/cache/tree", http::verb::get, CacheTree, Needs::kLoaded, Works::kForTheEngine},
    {"/v1/requests", http::verb::get, Requests, Needs::kLoaded},
    {"/v1/cache/reset", http::verb::post, ResetCache, Needs::kModels, Works::kForTheEngine},
    {"/v1/cache/warm", http::verb::post, Generate},
    {"/v1/cache/pin", http::verb::post, Generate},
    {"/v1/cache/unpin", http::verb::post, Unpin, Needs::kLoaded, Works::kForTheEngine},
    {"/v1/cache/pins", http::verb::get, Pins, Needs::kLoaded, Works::kForTheEngine},
    {"/tokenize", http::verb::post, Tokenize, Needs::kModel, Works::kOnTheBody},
    {"/detokenize", http::verb::post, Detokenize, Needs::kModel, Works::kOnTheBody},
    {"/v1/chat/completions", http::verb::post, Generate},
    {"/v1/completions", http::verb::post, Generate},
    {"/v1/responses", http::verb::post, Generate},
    {"/v1/embeddings", http::verb::post, Generate},
    {"/api/embed", http::verb::post, Generate},
    {"/v1/messages", http::verb::post, Generate},
    {"/completion", http::verb::post, Generate},
    {"/completions", http::verb::post, Generate},
    {"/infill", http::verb::post, Generate},
    {"/props", http::verb::get, Props, Needs::kLoaded},
    {"/apply-template", http::verb::post, ApplyTemplate, Needs::kModel, Works::kOnTheBody},
    {"/api/chat", http::verb::post, Generate},
    {"/api/generate", http::verb::post, Generate},
    {"/api/tags", http::verb::get, Tags, Needs::kModels, Works::kOnFiles},
    {"/api/ps", http::verb::get, Ps},
    {"/api/show", http::verb::post, Show, Needs::kModels, Works::kOnFiles},
    {"/api/version", http::verb::get, Version, Needs::kNothing},
    {"/v1/messages/count_tokens", http::verb::post, CountTokens, Needs::kModel, Works::kOnTheBody},
}};

const Route* FindRoute(const HttpRequest& request) {
  const std::string_view path = PathOf(request);
  const auto found = std::find_if(kRoutes.begin(), kRoutes.end(), [&](const Route& route) {
    const bool is_beginning = route.path.size() > 1 && route.path.ends_with('/');
    return is_beginning ? path.starts_with(route.path) : path == route.path;
  });
  return found == kRoutes.end() ? nullptr : &*found;
}

bool Allows(const Route& route, http::verb verb) {
  return verb == route.verb || (verb == http::verb::head && route.verb == http::verb::get);
}

}  // namespace

std::vector<std::pair<http::verb, std::string_view>> Routes() {
  std::vector<std::pair<http::verb, std::string_view>> all;
  for (const Route& route : kRoutes) all.emplace_back(route.verb, route.path);
  return all;
}

bool IsGeneration(const HttpRequest& request) {
  const Route* route = FindRoute(request);
  return route != nullptr && route->answer == Generate && Allows(*route, request.method());
}

bool IsPublic(const HttpRequest& request) {
  const Route* route = FindRoute(request);
  return route != nullptr && route->needs == Needs::kNothing;
}

net::awaitable<Reply> AnswerPlain(const HttpRequest& request, const Caller& caller, Stream& stream,
                                  ServerState& state) {
  // A browser asks before it sends; WriteReply adds what it wants to know.
  if (request.method() == http::verb::options) co_return Reply{.status = 204, .content_type = ""};
  const Route* route = FindRoute(request);
  if (route == nullptr) co_return NothingAt(request);
  if (!Allows(*route, request.method())) {
    const std::string_view verb = route->verb == http::verb::get ? "GET" : "POST";
    Reply reply = ErrorReply(TransportError(405, "method_not_allowed",
                                            fmt::format("{} takes {} only", route->path, verb)));
    reply.allow = route->verb == http::verb::get ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
    co_return reply;
  }
  Call call{request, caller, state, state.models, nullptr};
  if (route->needs != Needs::kNothing && call.models == nullptr) {
    co_return ErrorReply(ModelIsLoading());
  }
  std::optional<ApiResult<ModelLease>> model;
  if (route->needs == Needs::kLoaded) {
    const Work look = [&] { model = LookAtModel(request, state); };
    co_await WorkOnBody(request, stream, state, look);
    if (!model) co_return Reply{};  // nobody waits for it
  } else if (route->needs == Needs::kModel) {
    ApiResult<std::chrono::steady_clock::time_point> deadline = DeadlineOf(request);
    if (!deadline.ok()) co_return ErrorReply(deadline.error());
    model = co_await AcquireModel(request, caller, stream, state, deadline.value(), {});
  }
  if (model && !model->ok()) co_return ErrorReply(model->error());
  if (model) call.service = &*model->value();
  Reply reply;
  const Work answer = [&] { reply = route->answer(call); };
  switch (route->works) {
    case Works::kQuickly:
      answer();
      break;
    case Works::kForTheEngine:
      co_await RunOn(state.blocking, answer);
      break;
    case Works::kOnFiles:
      if (call.models->has_many()) {
        co_await RunOn(state.text, answer);
      } else {
        answer();
      }
      break;
    case Works::kOnTheBody:
      co_await WorkOnBody(request, stream, state, answer);
      break;
  }
  co_return reply;
}

}  // namespace trellis
