// From the engine's thread to a connection: the tokens of an answer, and whether the client is
// still there. Internal to server/.
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "server/metrics.h"
#include "server/request_log.h"
#include "server/session.h"

namespace trellis {

// What is known when a choice has ended.
struct Ending {
  FinishReason reason = FinishReason::kStop;
  Status status = {};
  GenerateTimings timings = {};
};

// As many tokens of an answer wait here as its client is slow to take: 48 bytes each.
struct Event {
  size_t choice = 0;
  std::variant<SampledToken, PromptProgress, std::vector<float>, std::unique_ptr<Ending>> what;
};

// Events, in order. What waits in it is bounded by what was asked for: max_tokens per choice.
class Channel : public std::enable_shared_from_this<Channel> {
 public:
  explicit Channel(const Stream::executor_type& strand);

  // From any thread.
  void Post(Event event);

  // --- On the strand ---

  using Time = net::steady_timer::time_point;

  enum class Wait { kEvent, kTime, kGone };
  // For an event, until `time`, or until the client is gone.
  net::awaitable<Wait> WaitUntil(Time time);
  // For an event, whether or not the client is still there.
  net::awaitable<void> WaitForNobody();
  // REQUIRES: !empty().
  Event TakeFirst();
  void ClientIsGone();
  bool empty() const { return events_.empty(); }

 private:
  Stream::executor_type strand_;
  net::steady_timer wake_;
  std::deque<Event> events_;
  bool client_is_gone_ = false;
};

// Whether the client has closed the connection, as far as the kernel can tell now. Any thread.
bool IsGone(Stream& stream);

// Calls `on_gone`, on the strand, when the client closes the connection, or its sending half, as
// HTTP servers take that for the same. Lives on the strand, no longer than the stream; nothing else
// may wait for the socket to become readable meanwhile.
class ClientWatch {
 public:
  ClientWatch(Stream& stream, std::function<void()> on_gone);
  ~ClientWatch();
  ClientWatch(const ClientWatch&) = delete;
  ClientWatch& operator=(const ClientWatch&) = delete;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// One choice's place in the channel.
class ChoiceSink : public GenerationSink {
 public:
  // REQUIRES: `metrics` outlives the engine.
  ChoiceSink(std::shared_ptr<Channel> channel, size_t choice, RequestMetrics& metrics,
             RequestLog::Record record);
  void OnPromptProgress(const PromptProgress& progress) override;
  void OnStage(Stage stage, const GenerateTimings& so_far) override;
  void OnToken(const SampledToken& token) override;
  void OnEmbedding(std::vector<float> embedding) override;
  void OnFinish(FinishReason reason, const Status& status, const GenerateTimings& timings) override;

 private:
  using Clock = std::chrono::steady_clock;

  std::shared_ptr<Channel> channel_;
  const size_t choice_;
  RequestMetrics& metrics_;
  RequestLog::Record record_;
  Clock::time_point last_ = Clock::now();  // of the request's arrival, then of its last token
  size_t num_tokens_ = 0;
};

}  // namespace trellis
