#include "server/channel.h"

#include <poll.h>

#include <utility>

namespace trellis {
namespace {

// How often to look where the kernel cannot tell, as the next request of the connection is there
// already.
constexpr std::chrono::milliseconds kLookInterval{250};

enum class Client { kSilent, kSending, kGone };

Client LookAt(Stream& stream) {
#if defined(POLLRDHUP)
  constexpr short kHangUp = POLLRDHUP;
#else
  constexpr short kHangUp = 0;
#endif
  pollfd fd{.fd = stream.socket().native_handle(), .events = POLLIN | kHangUp, .revents = 0};
  if (poll(&fd, 1, 0) <= 0) return Client::kSilent;
  if ((fd.revents & (kHangUp | POLLHUP | POLLERR | POLLNVAL)) != 0) return Client::kGone;
  return Client::kSending;
}

}  // namespace

bool IsGone(Stream& stream) {
  return LookAt(stream) == Client::kGone;
}

// --- Channel ---

Channel::Channel(const Stream::executor_type& strand) : strand_(strand), wake_(strand) {}

void Channel::Post(Event event) {
  net::post(strand_, [self = shared_from_this(), e = std::move(event)]() mutable {
    self->events_.push_back(std::move(e));
    self->wake_.cancel();
  });
}

net::awaitable<Channel::Wait> Channel::WaitUntil(Time time) {
  while (events_.empty() && !client_is_gone_) {
    if (std::chrono::steady_clock::now() >= time) co_return Wait::kTime;
    wake_.expires_at(time);
    boost::system::error_code cancelled;
    co_await wake_.async_wait(net::redirect_error(net::use_awaitable, cancelled));
  }
  co_return client_is_gone_ ? Wait::kGone : Wait::kEvent;
}

net::awaitable<void> Channel::WaitForNobody() {
  while (events_.empty()) {
    wake_.expires_at(Time::max());
    boost::system::error_code cancelled;
    co_await wake_.async_wait(net::redirect_error(net::use_awaitable, cancelled));
  }
}

Event Channel::TakeFirst() {
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void Channel::ClientIsGone() {
  client_is_gone_ = true;
  wake_.cancel();
}

// --- ClientWatch ---

// Shared with the handlers, which may run once more after the watch has ended.
struct ClientWatch::State : std::enable_shared_from_this<State> {
  State(Stream& s, std::function<void()> f)
      : stream(&s), timer(s.get_executor()), on_gone(std::move(f)) {}

  void Look() {
    if (stream == nullptr) return;
    const auto again = [self = shared_from_this()](const boost::system::error_code& error) {
      if (!error) self->Look();
    };
    switch (LookAt(*stream)) {
      case Client::kGone:
        return on_gone();
      case Client::kSilent:
        return stream->socket().async_wait(net::ip::tcp::socket::wait_read, again);
      case Client::kSending:
        timer.expires_after(kLookInterval);
        return timer.async_wait(again);
    }
  }

  Stream* stream;  // null: the watch has ended
  net::steady_timer timer;
  std::function<void()> on_gone;
};

ClientWatch::ClientWatch(Stream& stream, std::function<void()> on_gone)
    : state_(std::make_shared<State>(stream, std::move(on_gone))) {
  state_->Look();
}

ClientWatch::~ClientWatch() {
  boost::system::error_code ignored;
  std::exchange(state_->stream, nullptr)->socket().cancel(ignored);
  state_->timer.cancel();
}

// --- ChoiceSink ---

ChoiceSink::ChoiceSink(std::shared_ptr<Channel> channel, size_t choice, RequestMetrics& metrics,
                       RequestLog::Record record)
    : channel_(std::move(channel)),
      choice_(choice),
      metrics_(metrics),
      record_(std::move(record)) {}

void ChoiceSink::OnStage(Stage stage, const GenerateTimings& so_far) {
  record_.Reach(stage, so_far);
}

void ChoiceSink::OnPromptProgress(const PromptProgress& progress) {
  channel_->Post({choice_, progress});
}

void ChoiceSink::OnToken(const SampledToken& token) {
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - last_).count();
  (num_tokens_ == 0 ? metrics_.time_to_first_token : metrics_.inter_token_latency).Observe(seconds);
  last_ = now;
  num_tokens_++;
  record_.CountToken();
  channel_->Post({choice_, token});
}

void ChoiceSink::OnEmbedding(std::vector<float> embedding) {
  channel_->Post({choice_, std::move(embedding)});
}

void ChoiceSink::OnFinish(FinishReason reason, const Status& status,
                          const GenerateTimings& timings) {
  if (timings.generated_tokens > 0) {
    metrics_.prompt_tokens.Observe(static_cast<double>(timings.prompt_tokens));
    metrics_.computed_tokens.Observe(static_cast<double>(timings.computed_tokens));
  }
  // Who leaves early says nothing of how long an answer takes.
  if (reason == FinishReason::kStop || reason == FinishReason::kLength) {
    using Seconds = std::chrono::duration<double>;
    metrics_.queue_time.Observe(Seconds(timings.queued).count());
    metrics_.e2e_latency.Observe(
        Seconds(timings.queued + timings.prompt + timings.predicted).count());
  }
  record_.Finish(reason, timings);
  channel_->Post({choice_, std::make_unique<Ending>(Ending{reason, status, timings})});
}

}  // namespace trellis
