#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <system_error>
#include <thread>
#include <utility>

#include "base/mutex.h"
#include "engine/request.h"
#include "engine/step_loop.h"
#include "model/model.h"

namespace trellis {

// The inbox between everybody's threads and the engine's, and the engine's thread.
class Engine::Impl {
 public:
  Impl(Model& model, std::unique_ptr<PageCache> cache, const Options& options, size_t context_size);
  ~Impl();

  Result<RequestId> Submit(GenerateRequest request, std::shared_ptr<GenerationSink> sink);
  void EndEarly(RequestId id, FinishReason reason);
  void Drain(std::chrono::milliseconds timeout);
  // On the engine's thread, between two steps; returns when it was called.
  using Task = std::function<void(StepLoop&)>;
  void RunBetweenSteps(const Task& task);
  EngineStats Stats() const;
  PageCacheStats CacheStats() const;
  size_t context_size() const { return context_size_; }
  size_t max_queue() const { return max_queue_; }
  size_t max_running() const { return max_running_; }

 private:
  enum class Everything { kGoesOn, kIsCancelled, kIsCancelledForGood };
  struct Ending {
    RequestId id;
    FinishReason reason;
  };
  struct Inbox {
    std::vector<std::unique_ptr<Request>> submitted;
    std::vector<Ending> endings;
    Everything everything = Everything::kGoesOn;
    std::vector<const Task*> tasks;  // whose owners wait
    uint64_t last_task = 0;          // the ticket of the last of them; 0: none
  };

  void Run();
  Inbox TakeInbox();
  void Report(uint64_t last_task);
  Status CheckRequest(const GenerateRequest& request) const;
  size_t NumWaiting(const std::string& tenant) const TRELLIS_REQUIRES(mutex_);

  const size_t context_size_;
  const size_t vocab_size_;
  const size_t capacity_pages_;
  const size_t max_queue_, max_running_;

  mutable Mutex mutex_;
  CondVar wake_;      // the engine thread: the inbox is not empty
  CondVar progress_;  // Drain, RunBetweenSteps: open_ or tasks_done_ changed
  Inbox inbox_ TRELLIS_GUARDED_BY(mutex_);
  bool draining_ TRELLIS_GUARDED_BY(mutex_) = false;
  uint64_t next_id_ TRELLIS_GUARDED_BY(mutex_) = 1;
  uint64_t rejected_ TRELLIS_GUARDED_BY(mutex_) = 0;
  uint64_t tasks_asked_ TRELLIS_GUARDED_BY(mutex_) = 0;
  uint64_t tasks_done_ TRELLIS_GUARDED_BY(mutex_) = 0;
  size_t open_ TRELLIS_GUARDED_BY(mutex_) = 0;  // accepted, and OnFinish has not returned
  EngineStats stats_ TRELLIS_GUARDED_BY(mutex_);
  PageCacheStats cache_stats_ TRELLIS_GUARDED_BY(mutex_);

  StepLoop loop_;  // the engine thread's alone
  std::thread thread_;
};

Engine::Impl::Impl(Model& model, std::unique_ptr<PageCache> cache, const Options& options,
                   size_t context_size)
    : context_size_(context_size),
      vocab_size_(model.spec().vocab_size),
      capacity_pages_(cache->Stats().capacity),
      max_queue_(options.max_queue),
      max_running_(options.max_running),
      loop_(model, std::move(cache),
            {.limits = {.step_tokens = options.step_tokens,
                        .mixed_step_tokens = options.mixed_step_tokens,
                        .max_running = options.max_running},
             .max_inter_token = options.max_inter_token,
             .max_pinned_share = options.max_pinned_share,
             .pool = options.pool}) {
  Report(0);
  thread_ = std::thread([this] { Run(); });
}

Engine::Impl::~Impl() {
  {
    MutexLock lock(mutex_);
    draining_ = true;
    inbox_.everything = Everything::kIsCancelledForGood;
    wake_.NotifyAll();
  }
  thread_.join();
}

// --- The engine's thread ---

void Engine::Impl::Run() {
  Everything everything = Everything::kGoesOn;
  while (everything != Everything::kIsCancelledForGood) {
    Inbox inbox = TakeInbox();
    everything = inbox.everything;
    for (auto& request : inbox.submitted) loop_.Add(std::move(request));
    for (const Ending& ending : inbox.endings) loop_.EndEarly(ending.id, ending.reason);
    if (everything != Everything::kGoesOn) loop_.CancelAll();
    for (const Task* task : inbox.tasks) (*task)(loop_);
    loop_.Prepare();
    Report(inbox.last_task);  // a step can take long: nobody waits for it to hear of a cancel
    loop_.Run();
    Report(inbox.last_task);
  }
}

// Statistics first, so that who hears of a request's end finds it there.
void Engine::Impl::Report(uint64_t last_task) {
  const EngineStats stats = loop_.Stats();
  const PageCacheStats cache_stats = loop_.CacheStats();
  {
    MutexLock lock(mutex_);
    stats_ = stats;
    cache_stats_ = cache_stats;
  }
  const size_t num_finished = loop_.Deliver();
  MutexLock lock(mutex_);
  open_ -= num_finished;
  tasks_done_ = std::max(tasks_done_, last_task);
  progress_.NotifyAll();
}

// Sleeps while there is nothing to do.
Engine::Impl::Inbox Engine::Impl::TakeInbox() {
  MutexLock lock(mutex_);
  const auto empty = [](const Inbox& inbox) {
    return inbox.submitted.empty() && inbox.endings.empty() && inbox.tasks.empty() &&
           inbox.everything == Everything::kGoesOn;
  };
  while (loop_.idle() && empty(inbox_)) {
    const auto expiry = loop_.NextExpiry();
    if (!expiry) {
      wake_.Wait(mutex_);
    } else if (Request::Clock::now() < *expiry) {
      wake_.WaitUntil(mutex_, *expiry);
    } else {
      break;  // what it held is to be free
    }
  }
  // Until the next Report knows better.
  stats_.waiting += inbox_.submitted.size();
  stats_.requests_total += inbox_.submitted.size();
  for (const auto& request : inbox_.submitted) {
    stats_.waiting_of_tenant[request->params.client.tenant]++;
  }
  return std::exchange(inbox_, Inbox{});
}

// --- Everybody's threads ---

Status Engine::Impl::CheckRequest(const GenerateRequest& request) const {
  const std::vector<TokenId>& prompt = request.prompt;
  if (prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt holds no token");
  if (prompt.size() >= context_size_) {
    return Status(StatusCode::kTooLarge,
                  fmt::format("the prompt has {} tokens; the context holds {}, and at least one "
                              "must be left for the answer",
                              prompt.size(), context_size_));
  }
  if (PagesFor(prompt.size()) > capacity_pages_) {
    return Status(
        StatusCode::kTooLarge,
        fmt::format("the prompt has {} tokens; the KV cache holds {}: give it more memory "
                    "(--kv-cache) or shorten the prompt",
                    prompt.size(), capacity_pages_ * kPageTokens));
  }
  for (size_t i = 0; i < prompt.size(); i++) {
    if (prompt[i] < 0 || static_cast<size_t>(prompt[i]) >= vocab_size_) {
      return Status(StatusCode::kInvalidArgument,
                    fmt::format("prompt token {} is {}; the vocabulary has ids 0 to {}", i,
                                prompt[i], vocab_size_ - 1));
    }
  }
  return ValidateSampling(request.sampling, vocab_size_);
}

// Each tenant has a queue of its own, as far as others can tell: who fills it keeps nobody else
// out.
size_t Engine::Impl::NumWaiting(const std::string& tenant) const {
  const auto known = stats_.waiting_of_tenant.find(tenant);
  const auto in_inbox =
      std::count_if(inbox_.submitted.begin(), inbox_.submitted.end(),
                    [&](const auto& request) { return request->params.client.tenant == tenant; });
  return (known == stats_.waiting_of_tenant.end() ? 0 : known->second) +
         static_cast<size_t>(in_inbox);
}

Result<RequestId> Engine::Impl::Submit(GenerateRequest request,
                                       std::shared_ptr<GenerationSink> sink) {
  Status status = CheckRequest(request);
  std::unique_ptr<Request> accepted;
  if (status.ok()) {
    const size_t room = context_size_ - request.prompt.size();
    const size_t max_new = request.max_tokens == 0 ? room : std::min(room, request.max_tokens);
    accepted = std::make_unique<Request>(std::move(request), std::move(sink), max_new);
  }
  MutexLock lock(mutex_);
  if (status.ok() && draining_) {
    status = Status(StatusCode::kUnavailable, "shutting down: no new requests are accepted");
  }
  const size_t num_waiting = status.ok() ? NumWaiting(accepted->params.client.tenant) : 0;
  if (status.ok() && num_waiting >= max_queue_) {
    status = Status(StatusCode::kResourceExhausted,
                    fmt::format("{} requests are waiting already: try again later", num_waiting));
  }
  if (!status.ok()) {
    rejected_++;
    return status;
  }
  const RequestId id(next_id_++);
  accepted->id = id;
  inbox_.submitted.push_back(std::move(accepted));
  open_++;
  wake_.NotifyAll();
  return id;
}

void Engine::Impl::EndEarly(RequestId id, FinishReason reason) {
  MutexLock lock(mutex_);
  inbox_.endings.push_back({id, reason});
  wake_.NotifyAll();
}

void Engine::Impl::Drain(std::chrono::milliseconds timeout) {
  // Clamped, so that "for ever" does not overflow the clock.
  const auto deadline = std::chrono::steady_clock::now() +
                        std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24 * 365));
  MutexLock lock(mutex_);
  draining_ = true;
  while (open_ > 0 && std::chrono::steady_clock::now() < deadline) {
    progress_.WaitUntil(mutex_, deadline);
  }
  if (open_ > 0 && inbox_.everything == Everything::kGoesOn) {
    inbox_.everything = Everything::kIsCancelled;
    wake_.NotifyAll();
  }
  while (open_ > 0) progress_.Wait(mutex_);
}

void Engine::Impl::RunBetweenSteps(const Task& task) {
  MutexLock lock(mutex_);
  const uint64_t ticket = ++tasks_asked_;
  inbox_.tasks.push_back(&task);
  inbox_.last_task = ticket;
  wake_.NotifyAll();
  while (tasks_done_ < ticket) progress_.Wait(mutex_);
}

EngineStats Engine::Impl::Stats() const {
  MutexLock lock(mutex_);
  EngineStats stats = stats_;
  stats.waiting += inbox_.submitted.size();
  stats.requests_total += inbox_.submitted.size();
  stats.rejected_total = rejected_;
  return stats;
}

PageCacheStats Engine::Impl::CacheStats() const {
  MutexLock lock(mutex_);
  return cache_stats_;
}

// --- Engine ---

Result<std::unique_ptr<Engine>> Engine::Create(Model& model, std::unique_ptr<PageCache> cache,
                                               const Options& options) {
  if (cache->layout() != model.page_layout()) {
    return Status(StatusCode::kInvalidArgument,
                  "the cache was made for another model: its pages have another layout");
  }
  if (options.max_queue == 0 || options.max_running == 0 || options.step_tokens == 0 ||
      options.mixed_step_tokens == 0) {
    return Status(StatusCode::kInvalidArgument,
                  "max_queue, max_running, step_tokens and mixed_step_tokens must be at least 1");
  }
  if (!(options.max_pinned_share >= 0 && options.max_pinned_share <= 1)) {
    return Status(StatusCode::kInvalidArgument, "max_pinned_share must be between 0 and 1");
  }
  const size_t most = model.spec().context_length;
  const size_t context_size = options.context_size == 0 ? most : options.context_size;
  if (context_size > most) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("a context of {} tokens was asked for; the model was made for {}",
                              context_size, most));
  }
  if (context_size < 2) {
    return Status(StatusCode::kInvalidArgument, "the context must hold at least 2 tokens");
  }
  try {
    return std::unique_ptr<Engine>(
        new Engine(std::make_unique<Impl>(model, std::move(cache), options, context_size)));
  } catch (const std::system_error& error) {
    return Status(StatusCode::kIo,
                  fmt::format("cannot start the engine's thread: {}", error.what()));
  }
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<RequestId> Engine::Submit(GenerateRequest request, std::shared_ptr<GenerationSink> sink) {
  return impl_->Submit(std::move(request), std::move(sink));
}
void Engine::Cancel(RequestId id) {
  impl_->EndEarly(id, FinishReason::kCancelled);
}
void Engine::Finish(RequestId id) {
  impl_->EndEarly(id, FinishReason::kStop);
}
void Engine::Drain(std::chrono::milliseconds timeout) {
  impl_->Drain(timeout);
}
EngineStats Engine::Stats() const {
  return impl_->Stats();
}
PageCacheStats Engine::CacheStats() const {
  return impl_->CacheStats();
}
void Engine::ResetCache() {
  impl_->RunBetweenSteps([](StepLoop& loop) { loop.ResetCache(); });
}
std::vector<PinTable::View> Engine::Pins() {
  std::vector<PinTable::View> pins;
  impl_->RunBetweenSteps([&](StepLoop& loop) { pins = loop.Pins(); });
  return pins;
}
size_t Engine::Unpin(const std::string& tenant, std::optional<PinId> id) {
  size_t num_ended = 0;
  impl_->RunBetweenSteps([&](StepLoop& loop) { num_ended = loop.Unpin(tenant, id); });
  return num_ended;
}
void Engine::Inspect(const std::function<void(const PageCache&)>& look) {
  impl_->RunBetweenSteps([&look](StepLoop& loop) { look(loop.cache()); });
}
size_t Engine::context_size() const {
  return impl_->context_size();
}
size_t Engine::max_queue() const {
  return impl_->max_queue();
}
size_t Engine::max_running() const {
  return impl_->max_running();
}

}  // namespace trellis
