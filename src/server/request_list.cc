#include "server/request_list.h"

#include <limits>
#include <string>
#include <utility>

#include "api/json_text.h"
#include "server/request_log.h"
#include "server/target.h"

namespace trellis {
namespace {

const char* NameOf(LoggedRequest::State state) {
  switch (state) {
    case LoggedRequest::State::kWaiting:
      return "waiting";
    case LoggedRequest::State::kPrompt:
      return "prompt";
    case LoggedRequest::State::kGenerating:
      return "generating";
    case LoggedRequest::State::kFinished:
      break;
  }
  return "finished";
}

// As /metrics calls them.
const char* NameOf(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "abort";
    case FinishReason::kError:
      break;
  }
  return "error";
}

// Seconds since 1970.
OrderedJson TimeJson(LoggedRequest::Time time) {
  if (time == LoggedRequest::Time{}) return nullptr;
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

enum class Texts { kShown, kHidden };

OrderedJson RequestObject(const LoggedRequest& request, Texts texts, const Tokenizer& tokenizer) {
  const GenerateTimings& t = request.timings;
  const bool is_finished = request.state == LoggedRequest::State::kFinished;
  OrderedJson missed = OrderedJson::object();
  for (size_t i = 0; i < kNumMissCauses; i++) {
    if (t.missed.tokens[i] > 0)
      missed[MissCauseName(static_cast<MissCause>(i))] = t.missed.tokens[i];
  }
  OrderedJson object = {{"id", request.id},
                        {"choice", request.choice},
                        {"seq", request.seq},
                        {"state", NameOf(request.state)},
                        {"finish_reason", nullptr},
                        {"prompt_tokens", t.prompt_tokens},
                        {"cached_tokens", t.cached_tokens},
                        {"computed_tokens", t.computed_tokens},
                        {"generated_tokens", t.generated_tokens},
                        {"missed", std::move(missed)},
                        {"node", nullptr},
                        {"submitted_at", TimeJson(request.submitted)},
                        {"admitted_at", TimeJson(request.admitted)},
                        {"first_token_at", TimeJson(request.first_token)},
                        {"finished_at", TimeJson(request.finished)}};
  if (is_finished) object["finish_reason"] = NameOf(request.reason);
  if (t.tree_node != 0) object["node"] = t.tree_node;
  if (t.divergence) {
    object["diverged"] = {{"position", t.divergence->position}};
    if (texts == Texts::kShown) {
      const auto text = [&](const std::vector<TokenId>& tokens) {
        return tokenizer.Pieces(tokens, SpecialTokens::kParse);
      };
      object["diverged"]["prompt"] = text(t.divergence->prompt);
      object["diverged"]["cached"] = text(t.divergence->cached);
    }
  }
  return object;
}

}  // namespace

Reply RequestListReply(const HttpRequest& request, const Caller& caller, const Service& service) {
  ApiResult<uint64_t> since =
      QueryNumber(request, "since", 0, std::numeric_limits<int64_t>::max(), 0);
  if (!since.ok()) return ErrorReply(since.error());
  // As in the tree: text to the owner of its scope, and to a key without admin nothing else at all.
  const std::string salt = QueryValue(request, "cache_salt").value_or("");
  const std::string own_scope = caller.ScopeOf(salt);
  const RequestLog::Changes changes = service.requests.Since(
      since.value(),
      [&](const LoggedRequest& logged) { return caller.is_admin() || logged.scope == own_scope; });
  OrderedJson list = OrderedJson::array();
  for (const LoggedRequest& logged : changes.requests) {
    const bool is_own = caller.OwnsScope(salt) && logged.scope == own_scope;
    list.push_back(
        RequestObject(logged, is_own ? Texts::kShown : Texts::kHidden, *service.tokenizer));
  }
  return Reply{.body = ToText({{"seq", changes.seq},
                               {"now", TimeJson(std::chrono::system_clock::now())},
                               {"requests", std::move(list)}})};
}

}  // namespace trellis
