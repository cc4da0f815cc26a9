#include "server/model_wait.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "api/model_field.h"
#include "api/ollama_requests.h"
#include "server/channel.h"
#include "server/deadline.h"
#include "server/target.h"

namespace trellis {
namespace {

using Clock = std::chrono::steady_clock;

// One request's wait for its model. On the strand; what the pool says comes there by a post.
class ModelWait {
 public:
  enum class End { kResult, kTime, kGone };

  ModelWait(ModelPool& models, const ModelInfo& model, const std::string& tenant, Stream& stream)
      : models_(models),
        state_(std::make_shared<State>(stream)),
        watch_(stream, [state = state_] { state->Wake(&State::client_is_gone); }) {
    id_ = models_.Request(model, tenant, [state = state_](Result<ModelLease> result) {
      net::post(state->strand, [state, r = std::move(result)]() mutable {
        state->result = std::move(r);
        state->wake.cancel();
      });
    });
  }
  ~ModelWait() { models_.Cancel(id_); }
  ModelWait(const ModelWait&) = delete;
  ModelWait& operator=(const ModelWait&) = delete;

  net::awaitable<End> Until(Clock::time_point time) {
    while (!state_->result && !state_->client_is_gone) {
      if (Clock::now() >= time) co_return End::kTime;
      state_->wake.expires_at(time);
      boost::system::error_code cancelled;
      co_await state_->wake.async_wait(net::redirect_error(net::use_awaitable, cancelled));
    }
    co_return state_->client_is_gone ? End::kGone : End::kResult;
  }
  // REQUIRES: Until() said kResult.
  Result<ModelLease> Take() { return *std::move(state_->result); }

 private:
  // Shared with the callbacks, which may come once more after the wait has ended.
  struct State {
    explicit State(Stream& stream) : strand(stream.get_executor()), wake(strand) {}
    void Wake(bool State::*what) {
      this->*what = true;
      wake.cancel();
    }
    Stream::executor_type strand;
    net::steady_timer wake;
    std::optional<Result<ModelLease>> result;
    bool client_is_gone = false;
  };

  ModelPool& models_;
  std::shared_ptr<State> state_;
  ClientWatch watch_;
  uint64_t id_ = 0;
};

ApiError ClientHasLeft() {
  return ErrorFromStatus(Status(StatusCode::kCancelled, "the client has left"));
}

net::awaitable<ApiResult<ModelLease>> WaitForModel(const ModelInfo& model,
                                                   const std::string& tenant, Stream& stream,
                                                   ServerState& state, Clock::time_point deadline,
                                                   const KeepAlive& keep_alive) {
  ModelWait wait(*state.models, model, tenant, stream);
  for (;;) {
    const auto silent_until = Clock::now() + state.options.keep_alive_interval;
    const ModelWait::End end = co_await wait.Until(std::min(silent_until, deadline));
    if (end == ModelWait::End::kGone) co_return ClientHasLeft();
    if (end == ModelWait::End::kResult) {
      Result<ModelLease> lease = wait.Take();
      if (!lease.ok()) co_return ErrorOfModel(lease.status());
      co_return std::move(*lease);
    }
    if (Clock::now() >= deadline) co_return ErrorFromStatus(TooLate());
    if (keep_alive && !co_await keep_alive()) co_return ClientHasLeft();
  }
}

}  // namespace

ApiResult<std::string> ModelNameOf(const HttpRequest& request) {
  // An answer's model stands in its body alone.
  const bool may_be_in_query =
      request.method() != http::verb::post || PathOf(request).starts_with("/v1/cache/");
  if (const auto name = QueryValue(request, "model"); name && may_be_in_query) return *name;
  ApiResult<std::string> name = ModelNamedIn(request.body());
  if (name.ok() && PathOf(request).starts_with("/api/"))
    return WithoutLatest(std::move(name.value()));
  return name;
}

net::awaitable<ApiResult<ModelLease>> AcquireModel(const HttpRequest& request, const Caller& caller,
                                                   Stream& stream, ServerState& state,
                                                   Clock::time_point deadline,
                                                   const KeepAlive& keep_alive) {
  std::optional<ApiResult<std::string>> name;
  ModelLease lease;
  const Work take_if_loaded = [&] {
    name = ModelNameOf(request);
    if (name->ok()) lease = state.models.load()->TryAcquire(name->value());
  };
  co_await WorkOnBody(request, stream, state, take_if_loaded);
  if (!name) co_return ClientHasLeft();
  if (!name->ok()) co_return name->error();
  if (lease) co_return std::move(lease);
  Result<ModelInfo> model = Status(StatusCode::kInternal, "");
  const Work find = [&] { model = state.models.load()->Find(name->value()); };
  co_await RunOn(state.text, find);
  if (!model.ok()) co_return ErrorOfModel(model.status());
  co_return co_await WaitForModel(*model, caller.tenant(), stream, state, deadline, keep_alive);
}

ApiResult<ModelLease> LookAtModel(const HttpRequest& request, ServerState& state) {
  ApiResult<std::string> name = ModelNameOf(request);
  if (!name.ok()) return name.error();
  Result<ModelLease> lease = state.models.load()->Look(name.value());
  if (!lease.ok()) return ErrorOfModel(lease.status());
  return std::move(*lease);
}

}  // namespace trellis
