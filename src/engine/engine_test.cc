#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <random>
#include <thread>

#include "engine/test_support.h"
#include "os/compute_pool.h"

namespace trellis {
namespace {

using std::chrono::milliseconds;

// Holds the engine's thread inside Forward until it is opened.
class Gate {
 public:
  void Close() {
    MutexLock lock(mutex_);
    closed_ = true;
  }
  void Open() {
    MutexLock lock(mutex_);
    closed_ = false;
    changed_.NotifyAll();
  }
  void Pass() {
    MutexLock lock(mutex_);
    passing_++;
    changed_.NotifyAll();
    while (closed_) changed_.Wait(mutex_);
    passing_--;
  }
  void WaitUntilSomebodyIsIn() {
    MutexLock lock(mutex_);
    while (passing_ == 0) changed_.Wait(mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool closed_ TRELLIS_GUARDED_BY(mutex_) = false;
  int passing_ TRELLIS_GUARDED_BY(mutex_) = 0;
};

class EngineTest : public testing::Test {
 protected:
  ~EngineTest() override {
    gate_.Open();
    engine_.reset();
  }

  void Start(size_t num_pages = 64, const Engine::Options& options = {}) {
    model_.on_forward = [this](auto) { gate_.Pass(); };
    auto engine = Engine::Create(model_, MakeCache(model_, num_pages), options);
    ASSERT_TRUE(engine.ok()) << engine.status().message();
    engine_ = std::move(engine).value();
  }

  static GenerateRequest Make(Tokens prompt, size_t max_tokens, uint64_t seed = 0) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.sampling.seed = seed;
    return request;
  }
  std::shared_ptr<RecordingSink> Submit(const GenerateRequest& request, RequestId* id = nullptr) {
    auto sink = std::make_shared<RecordingSink>();
    const Result<RequestId> result = engine_->Submit(request, sink);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (id != nullptr && result.ok()) *id = *result;
    return sink;
  }
  Status SubmitStatus(const GenerateRequest& request) {
    const Result<RequestId> result = engine_->Submit(request, std::make_shared<RecordingSink>());
    return result.ok() ? Status::Ok() : result.status();
  }

  FakeModel model_{1024};
  Gate gate_;
  std::unique_ptr<ComputePool> pool_;  // of tests that sample in parallel
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, GeneratesTheReferenceText) {
  Start();
  const GenerateRequest request = Make(MakeTokens(100, 1), 30, 5);
  const auto sink = Submit(request);
  sink->WaitFinished();
  EXPECT_EQ(sink->reason(), FinishReason::kLength);
  EXPECT_EQ(sink->tokens(), ReferenceTokens(model_, request, 30));
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(stats.requests_total, 1u);
  EXPECT_EQ(stats.finished_total, 1u);
  EXPECT_EQ(stats.prompt_tokens_total, 100u);
  EXPECT_EQ(stats.computed_tokens_total, 100u);
  EXPECT_EQ(stats.generated_tokens_total, 30u);
  EXPECT_EQ(stats.running + stats.waiting, 0u);
  const PageCacheStats cache = engine_->CacheStats();
  EXPECT_EQ(cache.pinned, 0u);
  EXPECT_EQ(cache.num_leases, 0u);
  EXPECT_GT(cache.committed, 0u);
}

TEST_F(EngineTest, TheEndOfTheContextEndsWithLength) {
  Start(64, {.context_size = 50});
  EXPECT_EQ(engine_->context_size(), 50u);
  for (size_t max_tokens : {0u, 100u, 20u}) {
    const auto sink = Submit(Make(MakeTokens(30, 1), max_tokens));
    sink->WaitFinished();
    EXPECT_EQ(sink->reason(), FinishReason::kLength);
    EXPECT_EQ(sink->tokens().size(), 20u) << "prompt and answer fill the context";
  }
}

TEST_F(EngineTest, RefusesWhatCanNeverWorkAndSaysWhy) {
  Start(10, {.context_size = 500});
  const auto expect = [&](const GenerateRequest& request, StatusCode code, const char* text) {
    const Status status = SubmitStatus(request);
    EXPECT_EQ(status.code(), code);
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
  };
  expect(Make({}, 5), StatusCode::kInvalidArgument, "no token");
  expect(Make({1, 2, 101}, 5), StatusCode::kInvalidArgument, "prompt token 2 is 101");
  expect(Make({-1}, 5), StatusCode::kInvalidArgument, "prompt token 0 is -1");
  expect(Make(MakeTokens(500, 1), 5), StatusCode::kTooLarge, "500 tokens; the context holds 500");
  expect(Make(MakeTokens(321, 1), 5), StatusCode::kTooLarge, "321 tokens; the KV cache holds 320");
  GenerateRequest request = Make({1}, 5);
  request.sampling.temperature = -1;
  expect(request, StatusCode::kInvalidArgument, "temperature");
  EXPECT_EQ(engine_->Stats().rejected_total, 6u);
  EXPECT_EQ(engine_->Stats().requests_total, 0u);
  EXPECT_TRUE(SubmitStatus(Make(MakeTokens(320, 1), 1)).ok());
}

TEST_F(EngineTest, CreateRefusesWhatDoesNotFitTogether) {
  const auto code = [&](const Engine::Options& options) {
    const auto engine = Engine::Create(model_, MakeCache(model_, 4), options);
    return engine.ok() ? StatusCode::kOk : engine.status().code();
  };
  EXPECT_EQ(code({}), StatusCode::kOk);
  EXPECT_EQ(code({.context_size = 1025}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.context_size = 1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_queue = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.max_running = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.step_tokens = 0}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.mixed_step_tokens = 0}), StatusCode::kInvalidArgument);
  auto other = PageCache::Create(
      {.layout = {.num_layers = 1, .num_kv_heads = 1, .head_dim = 8}, .capacity_bytes = 1 << 20});
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(Engine::Create(model_, std::move(other).value(), {}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(EngineTest, AFullQueueRefusesAndRecovers) {
  gate_.Close();
  Start(64, {.max_queue = 3, .max_running = 1});
  const auto running = Submit(Make({1}, 5));
  gate_.WaitUntilSomebodyIsIn();
  std::vector<std::shared_ptr<RecordingSink>> waiting;
  for (TokenId i = 2; i < 5; i++) waiting.push_back(Submit(Make({i}, 5)));
  EXPECT_EQ(engine_->Stats().waiting, 3u);
  EXPECT_EQ(SubmitStatus(Make({9}, 5)).code(), StatusCode::kResourceExhausted);
  gate_.Open();
  for (const auto& sink : waiting) sink->WaitFinished();
  EXPECT_TRUE(SubmitStatus(Make({9}, 5)).ok());
}

TEST_F(EngineTest, CancelEndsWaitingAndRunningRequests) {
  gate_.Close();
  Start(64, {.max_running = 1});
  RequestId running_id, waiting_id;
  const auto running = Submit(Make({1}, 1000), &running_id);
  gate_.WaitUntilSomebodyIsIn();
  const auto waiting = Submit(Make({2}, 1000), &waiting_id);
  const auto next = Submit(Make({3}, 7));
  engine_->Cancel(waiting_id);
  engine_->Cancel(running_id);
  engine_->Cancel(running_id);
  engine_->Cancel(RequestId(777));
  gate_.Open();
  running->WaitFinished();
  waiting->WaitFinished();
  next->WaitFinished();
  EXPECT_EQ(running->reason(), FinishReason::kCancelled);
  EXPECT_LE(running->tokens().size(), 1u);
  EXPECT_EQ(waiting->reason(), FinishReason::kCancelled);
  EXPECT_EQ(next->reason(), FinishReason::kLength);
  EXPECT_EQ(engine_->Stats().cancelled_total, 2u);
}

// A client that has what it wants ends the request from within the sink: no row is run after that.
TEST_F(EngineTest, AnEndFromASinkTakesEffectBeforeTheNextStepAndTheFirstCounts) {
  class Satisfied : public RecordingSink {
   public:
    void OnToken(const SampledToken& token) override {
      RecordingSink::OnToken(token);
      if (tokens().size() < 4) return;
      (engine->*first)(id);
      (engine->*second)(id);
    }
    Engine* engine = nullptr;
    void (Engine::*first)(RequestId) = nullptr;
    void (Engine::*second)(RequestId) = nullptr;
    RequestId id;
  };
  const auto run = [&](void (Engine::*first)(RequestId), void (Engine::*second)(RequestId)) {
    gate_.Close();
    Start();
    const auto sink = std::make_shared<Satisfied>();
    sink->engine = engine_.get();
    sink->first = first;
    sink->second = second;
    const Result<RequestId> id = engine_->Submit(Make({1}, 100), sink);
    TRELLIS_CHECK(id.ok());
    sink->id = *id;
    gate_.Open();
    sink->WaitFinished();
    EXPECT_EQ(sink->tokens().size(), 4u);
    EXPECT_EQ(engine_->Stats().steps_total, 4u);
    return sink->reason();
  };
  EXPECT_EQ(run(&Engine::Cancel, &Engine::Finish), FinishReason::kCancelled);
  EXPECT_EQ(engine_->Stats().cancelled_total, 1u);
  EXPECT_EQ(engine_->Stats().finished_total, 0u);
  EXPECT_EQ(run(&Engine::Finish, &Engine::Cancel), FinishReason::kStop);
  EXPECT_EQ(engine_->Stats().finished_total, 1u);
  EXPECT_EQ(engine_->Stats().cancelled_total, 0u);
  EXPECT_EQ(engine_->CacheStats().num_leases, 0u);
}

TEST_F(EngineTest, FinishEndsWaitingRequestsAndIgnoresUnknownOnes) {
  gate_.Close();
  Start(64, {.max_running = 1});
  const auto running = Submit(Make({1}, 5));
  gate_.WaitUntilSomebodyIsIn();
  RequestId waiting_id;
  const auto waiting = Submit(Make({2}, 1000), &waiting_id);
  engine_->Finish(waiting_id);
  engine_->Finish(RequestId(777));
  gate_.Open();
  waiting->WaitFinished();
  running->WaitFinished();
  EXPECT_EQ(waiting->reason(), FinishReason::kStop);
  EXPECT_EQ(running->reason(), FinishReason::kLength);
  EXPECT_EQ(engine_->Stats().finished_total, 2u);
  engine_->Finish(waiting_id);
  engine_->ResetCache();  // the engine has heard of it
  EXPECT_EQ(engine_->Stats().finished_total, 2u);
}

TEST_F(EngineTest, DrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  gate_.Close();
  Start(64, {.max_running = 1});
  const auto a = Submit(Make({1}, 20));
  const auto b = Submit(Make({2}, 20));
  gate_.WaitUntilSomebodyIsIn();
  std::thread drain([&] { engine_->Drain(std::chrono::hours(1)); });
  while (SubmitStatus(Make({3}, 1)).code() != StatusCode::kUnavailable) std::this_thread::yield();
  gate_.Open();
  drain.join();
  EXPECT_EQ(a->reason(), FinishReason::kLength);
  EXPECT_EQ(b->reason(), FinishReason::kLength);
  engine_->Drain(milliseconds::max());  // nothing left: returns at once
}

TEST_F(EngineTest, DrainCancelsWhatTakesTooLong) {
  gate_.Close();
  Start(64, {.max_running = 1});
  const auto a = Submit(Make({1}, 1000));
  const auto b = Submit(Make({2}, 1000));
  gate_.WaitUntilSomebodyIsIn();
  std::thread drain([&] { engine_->Drain(milliseconds(0)); });
  while (SubmitStatus(Make({3}, 1)).code() != StatusCode::kUnavailable) std::this_thread::yield();
  gate_.Open();
  drain.join();
  EXPECT_TRUE(a->finished());
  EXPECT_TRUE(b->finished());
  EXPECT_EQ(b->reason(), FinishReason::kCancelled);
}

TEST_F(EngineTest, DestructionCancelsEverything) {
  gate_.Close();
  Start(64, {.max_running = 1});
  const auto a = Submit(Make({1}, 1000));
  const auto b = Submit(Make({2}, 1000));
  gate_.WaitUntilSomebodyIsIn();
  std::thread destroy([&] { engine_.reset(); });
  gate_.Open();
  destroy.join();
  EXPECT_TRUE(a->finished());
  EXPECT_TRUE(b->finished());
}

// Whatever it is doing: waiting, prefilling, decoding, short of memory.
TEST_F(EngineTest, DestructionAtAnyTimeFinishesEveryRequestWithTheTextItHad) {
  for (size_t round = 0; round < 20; round++) {
    Start(12, {.max_running = 3, .step_tokens = 32, .mixed_step_tokens = 16});
    std::vector<GenerateRequest> requests;
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (size_t i = 0; i < 8; i++) {
      requests.push_back(Make(MakeTokens(30 + 20 * i, i % 3), 120, i));
      sinks.push_back(Submit(requests.back()));
    }
    sinks[round % 3]->WaitTokens(round);
    engine_.reset();
    for (size_t i = 0; i < sinks.size(); i++) {
      ASSERT_TRUE(sinks[i]->finished());
      const Tokens all = ReferenceTokens(model_, requests[i], 120), some = sinks[i]->tokens();
      ASSERT_LE(some.size(), all.size());
      EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
    }
  }
}

TEST_F(EngineTest, ResetCacheForgets) {
  Start();
  for (const size_t expected : {0u, 99u}) {
    const auto sink = Submit(Make(MakeTokens(100, 1), 2));
    sink->WaitFinished();
    EXPECT_EQ(sink->timings().cached_tokens, expected);
  }
  engine_->ResetCache();
  EXPECT_EQ(engine_->CacheStats().free, 64u);
  const auto sink = Submit(Make(MakeTokens(100, 1), 2));
  sink->WaitFinished();
  EXPECT_EQ(sink->timings().cached_tokens, 0u);
}

TEST_F(EngineTest, InspectShowsTheCacheOnTheEnginesThreadWhetherSomethingRunsOrNot) {
  Start();
  std::thread::id there = std::this_thread::get_id();
  size_t num_leases = 99;
  const auto look = [&](const PageCache& cache) {
    there = std::this_thread::get_id();
    num_leases = cache.Stats().num_leases;
  };
  engine_->Inspect(look);
  EXPECT_NE(there, std::this_thread::get_id());
  EXPECT_EQ(num_leases, 0u);
  // The request may be over before the look comes.
  for (int i = 0; i < 100 && num_leases == 0; i++) {
    RequestId id;
    const auto sink = Submit(Make(MakeTokens(10, 1), 900), &id);
    sink->WaitTokens(1);
    engine_->Inspect(look);
    engine_->Cancel(id);
    sink->WaitFinished();
  }
  EXPECT_EQ(num_leases, 1u);
  engine_->Inspect(look);
  EXPECT_EQ(num_leases, 0u);
}

TEST_F(EngineTest, EveryLookOfManyThreadsIsTaken) {
  Start();
  const auto sink = Submit(Make(MakeTokens(10, 1), 900));
  size_t num_looks = 0;  // the engine's thread is the only one to touch it
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; n++) {
        engine_->Inspect([&](const PageCache& cache) {
          cache.Validate();
          num_looks++;
        });
        if (n % 10 == 0) engine_->ResetCache();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(num_looks, 200u);
  sink->WaitFinished();
  EXPECT_EQ(sink->reason(), FinishReason::kLength);
}

TEST_F(EngineTest, AnIdleEngineTakesNoSteps) {
  Start();
  Submit(Make({1}, 5))->WaitFinished();
  engine_->Cancel(RequestId(99));
  engine_->ResetCache();
  EXPECT_EQ(engine_->Stats().steps_total, 5u);
}

// Many clients at once, over a cache that is too small for all of them and is reset all the time:
// every answer is the reference's, every one of the 200 cancelled requests gives back what it held.
// Three threads sample what they get.
TEST_F(EngineTest, ManyThreadsSubmitAndCancel) {
  pool_ = ComputePool::Create(3).value();
  Start(40, {.max_running = 6, .step_tokens = 100, .mixed_step_tokens = 50, .pool = pool_.get()});
  constexpr size_t kThreads = 4, kRequests = 60;
  std::vector<std::thread> threads;
  std::vector<size_t> cancels(kThreads, 0);
  for (size_t t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
      for (size_t i = 0; i < kRequests; i++) {
        const Tokens trunk = MakeTokens(150, below(2));
        const GenerateRequest request =
            Make(Concat(trunk, MakeTokens(1 + below(20), below(100))), 1 + below(60), below(100));
        RequestId id;
        const auto sink = Submit(request, &id);
        if (i % 6 != 0) {
          sink->WaitTokens(below(request.max_tokens));
          engine_->Cancel(id);
          cancels[t]++;
        }
        EXPECT_LE(engine_->Stats().running, 6u);
        sink->WaitFinished();
        const Tokens all = ReferenceTokens(model_, request, request.max_tokens);
        const Tokens some = sink->tokens();
        ASSERT_LE(some.size(), all.size());
        EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
        if (sink->reason() == FinishReason::kLength) {
          EXPECT_EQ(some.size(), all.size());
        }
      }
    });
  }
  std::atomic<bool> done = false;
  std::thread resets([&] {
    while (!done) {
      engine_->ResetCache();
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  for (std::thread& thread : threads) thread.join();
  done = true;
  resets.join();
  EXPECT_GE(std::accumulate(cancels.begin(), cancels.end(), size_t{0}), 200u);
  const PageCacheStats cache = engine_->CacheStats();
  EXPECT_EQ(cache.pinned, 0u);
  EXPECT_EQ(cache.private_pages, 0u);
  EXPECT_EQ(cache.free + cache.private_pages + cache.committed, cache.capacity);
  const EngineStats stats = engine_->Stats();
  EXPECT_EQ(stats.requests_total, kThreads * kRequests);
  EXPECT_EQ(stats.finished_total + stats.cancelled_total, kThreads * kRequests);
  EXPECT_GT(stats.cancelled_total, 0u);
  EXPECT_EQ(stats.failed_total, 0u);
  EXPECT_EQ(stats.length_total, stats.finished_total);
  EXPECT_EQ(stats.cached_tokens_total + stats.computed_tokens_total + stats.abandoned_tokens_total,
            stats.prompt_tokens_total);
  EXPECT_EQ(stats.queried_tokens_total, stats.prompt_tokens_total);
  EXPECT_LE(stats.hit_tokens_total, stats.cached_tokens_total);
}

}  // namespace
}  // namespace trellis
