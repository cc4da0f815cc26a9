// What the engine's tests share: a sink that remembers, and what it should have heard.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "engine/engine.h"
#include "engine/fake_model.h"

namespace trellis {

using Tokens = std::vector<TokenId>;

// Remembers everything; checks the order of calls. Any thread may ask.
class RecordingSink : public GenerationSink {
 public:
  void OnPromptProgress(const PromptProgress& progress) override {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(!finished_ && progress.done > progress_ && progress.done <= progress.total);
    TRELLIS_CHECK(progress.cached < progress.done);
    progress_ = progress.done;
  }
  void OnStage(Stage stage, const GenerateTimings& so_far) override {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(!finished_ && tokens_.empty());
    TRELLIS_CHECK(stages_.size() == static_cast<size_t>(stage));
    stages_.push_back(so_far);
  }
  void OnToken(const SampledToken& token) override {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(!finished_ && stages_.size() == 2);
    tokens_.push_back(token.token);
    changed_.NotifyAll();
  }
  void OnEmbedding(std::vector<float> embedding) override {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(!finished_ && embedding_.empty());
    embedding_ = std::move(embedding);
  }
  void OnFinish(FinishReason reason, const Status& status,
                const GenerateTimings& timings) override {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(!finished_ && status.ok() == (reason != FinishReason::kError));
    finished_ = true;
    reason_ = reason;
    status_ = status;
    timings_ = timings;
    changed_.NotifyAll();
  }

  void WaitFinished() {
    MutexLock lock(mutex_);
    while (!finished_) changed_.Wait(mutex_);
  }
  void WaitTokens(size_t n) {
    MutexLock lock(mutex_);
    while (!finished_ && tokens_.size() < n) changed_.Wait(mutex_);
  }
  bool finished() const {
    MutexLock lock(mutex_);
    return finished_;
  }
  FinishReason reason() const {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(finished_);
    return reason_;
  }
  GenerateTimings timings() const {
    MutexLock lock(mutex_);
    TRELLIS_CHECK(finished_);
    return timings_;
  }
  Status status() const {
    MutexLock lock(mutex_);
    return status_;
  }
  // What was known at each Stage that it has reached.
  std::vector<GenerateTimings> stages() const {
    MutexLock lock(mutex_);
    return stages_;
  }
  Tokens tokens() const {
    MutexLock lock(mutex_);
    return tokens_;
  }
  std::vector<float> embedding() const {
    MutexLock lock(mutex_);
    return embedding_;
  }
  size_t progress() const {
    MutexLock lock(mutex_);
    return progress_;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  size_t progress_ TRELLIS_GUARDED_BY(mutex_) = 0;
  std::vector<GenerateTimings> stages_ TRELLIS_GUARDED_BY(mutex_);
  Tokens tokens_ TRELLIS_GUARDED_BY(mutex_);
  std::vector<float> embedding_ TRELLIS_GUARDED_BY(mutex_);
  bool finished_ TRELLIS_GUARDED_BY(mutex_) = false;
  FinishReason reason_ TRELLIS_GUARDED_BY(mutex_) = FinishReason::kError;
  Status status_ TRELLIS_GUARDED_BY(mutex_);
  GenerateTimings timings_ TRELLIS_GUARDED_BY(mutex_);
};

// What `request` generates, from its tokens alone: no cache, no batch, no engine.
inline Tokens ReferenceTokens(const FakeModel& model, const GenerateRequest& request,
                              size_t max_tokens) {
  Tokens tokens = request.prompt;
  const Sampler sampler(request.sampling);
  for (size_t i = 0; i < max_tokens; i++) {
    const TokenId token = sampler.Sample(model.ReferenceLogits(tokens), tokens, i).token;
    if (std::find(request.end_tokens.begin(), request.end_tokens.end(), token) !=
        request.end_tokens.end()) {
      break;
    }
    tokens.push_back(token);
  }
  tokens.erase(tokens.begin(), tokens.begin() + static_cast<long>(request.prompt.size()));
  return tokens;
}

// `n` tokens that look random and depend on `seed`.
inline Tokens MakeTokens(size_t n, uint64_t seed, size_t vocab_size = 101) {
  Tokens tokens(n);
  uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
  for (TokenId& token : tokens) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<TokenId>((x >> 33) % vocab_size);
  }
  return tokens;
}

inline Tokens Concat(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

enum class Finished { kStay, kGo };  // PageCache::Options::keep_finished

inline std::unique_ptr<PageCache> MakeCache(const FakeModel& model, size_t num_pages,
                                            Finished finished = Finished::kStay) {
  const PageLayout layout = model.page_layout();
  auto cache = PageCache::Create({.layout = layout,
                                  .capacity_bytes = num_pages * layout.page_bytes(),
                                  .keep_finished = finished == Finished::kStay});
  TRELLIS_CHECK(cache.ok());
  return std::move(cache).value();
}

}  // namespace trellis
