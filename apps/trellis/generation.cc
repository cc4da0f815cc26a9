#include "generation.h"

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <random>

#include "text/stream_decoder.h"

namespace trellis {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

// Tokens from the engine's thread to the one that asked.
class TokenQueue : public GenerationSink {
 public:
  struct Batch {
    std::deque<TokenId> tokens;
    bool is_last = false;
  };

  void OnToken(const SampledToken& token) override {
    std::lock_guard lock(mutex_);
    if (!first_) first_ = Clock::now();
    tokens_.push_back(token.token);
    wake_.notify_one();
  }
  void OnFinish(FinishReason, const Status& status, const GenerateTimings& timings) override {
    std::lock_guard lock(mutex_);
    status_ = status;
    timings_ = timings;
    end_ = Clock::now();
    wake_.notify_one();
  }

  // What has come; nothing if nothing comes for 50 ms.
  Batch Next() {
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, std::chrono::milliseconds(50), [&] { return end_ || !tokens_.empty(); });
    Batch batch{.tokens = {}, .is_last = end_.has_value()};
    batch.tokens.swap(tokens_);
    return batch;
  }

  // REQUIRES: the last batch was taken.
  const Status& status() const { return status_; }
  GenerationStats Stats() const {
    const Clock::time_point first = first_.value_or(*end_);
    return {.prompt_tokens = timings_.prompt_tokens,
            .cached_tokens = timings_.cached_tokens,
            .generated_tokens = timings_.generated_tokens,
            .first_token_seconds = Seconds(first - start_),
            .rest_seconds = Seconds(*end_ - first)};
  }

 private:
  const Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<TokenId> tokens_;
  std::optional<Clock::time_point> first_, end_;
  Status status_;
  GenerateTimings timings_;
};

double Rate(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace

double GenerationStats::prompt_rate() const {
  return Rate(prompt_tokens - cached_tokens, first_token_seconds);
}

double GenerationStats::generated_rate() const {
  return Rate(generated_tokens, rest_seconds);
}

Result<GenerationStats> Generate(const Service& service, std::vector<TokenId> prompt,
                                 const GenerationOptions& options,
                                 const GenerationListener& listener) {
  if (prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.end_tokens = service.end_tokens;
  request.max_tokens = options.max_tokens;
  request.sampling = options.sampling;
  service.BanSuppressed(&request.sampling);
  request.sampling.seed =
      options.seed == -1 ? std::random_device{}() : static_cast<uint64_t>(options.seed);
  auto queue = std::make_shared<TokenQueue>();
  TRELLIS_ASSIGN_OR_RETURN(const RequestId id, service.engine->Submit(std::move(request), queue));
  StreamDecoder decoder(*service.tokenizer, {}, SpecialTokens::kAsText);
  bool was_stopped = false;
  for (bool is_last = false; !is_last;) {
    if (!was_stopped && listener.is_stopped()) {
      was_stopped = true;
      service.engine->Cancel(id);
    }
    const TokenQueue::Batch batch = queue->Next();
    for (const TokenId token : batch.tokens) {
      if (const std::string text = decoder.Push(token); !text.empty()) listener.on_text(text);
    }
    is_last = batch.is_last;
  }
  if (const std::string text = decoder.Finish(); !text.empty()) listener.on_text(text);
  TRELLIS_RETURN_IF_ERROR(queue->status());
  GenerationStats stats = queue->Stats();
  stats.was_stopped = was_stopped;
  return stats;
}

}  // namespace trellis
