#include "server/model_pool.h"

#include <gtest/gtest.h>

#include <future>
#include <random>

#include "server/fake_models.h"

namespace trellis {
namespace {

using Names = std::vector<std::string>;

// A request whose result can be waited for.
class Asked {
 public:
  Asked(ModelPool& pool, const std::string& name, const std::string& tenant = "") : pool_(pool) {
    auto promise = std::make_shared<std::promise<Result<ModelLease>>>();
    result_ = promise->get_future();
    id_ =
        pool.Request(std::move(pool.Find(name)).value(), tenant,
                     [promise](Result<ModelLease> lease) { promise->set_value(std::move(lease)); });
  }
  Result<ModelLease> Get() { return result_.get(); }
  bool is_there() const {
    return result_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  void Cancel() { pool_.Cancel(id_); }

 private:
  ModelPool& pool_;
  std::future<Result<ModelLease>> result_;
  uint64_t id_ = 0;
};

ModelLease Acquire(ModelPool& pool, const std::string& name) {
  return std::move(Asked(pool, name).Get()).value();
}

template <typename Condition>
void Await(const Condition& condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

class ModelPoolTest : public ::testing::Test {
 protected:
  ModelPoolTest() { fakes_.models = {{"a", {}}, {"b", {}}, {"c", {}}}; }
  FakeModels fakes_;
};

TEST_F(ModelPoolTest, AModelIsLoadedWhenItIsAskedForAndStays) {
  const auto pool = fakes_.Pool(2);
  EXPECT_FALSE(pool->TryAcquire("a"));
  EXPECT_EQ(fakes_.loads(), Names());
  { EXPECT_EQ(Acquire(*pool, "a")->model_name, "a"); }
  EXPECT_EQ(pool->TryAcquire("a")->model_name, "a");
  EXPECT_EQ(Acquire(*pool, "a")->model_name, "a");
  EXPECT_EQ(fakes_.loads(), Names({"a"}));
}

TEST_F(ModelPoolTest, ThoseWhoAskForTheSameModelGetOneLoad) {
  const auto pool = fakes_.Pool(2);
  fakes_.loading.Close();
  Asked first(*pool, "a"), second(*pool, "a");
  Await([&] { return pool->is_loading(); });
  Asked third(*pool, "a");
  EXPECT_FALSE(first.is_there() || second.is_there() || third.is_there());
  fakes_.loading.Open();
  const ModelLease one = std::move(first.Get()).value(), two = std::move(second.Get()).value(),
                   three = std::move(third.Get()).value();
  EXPECT_EQ(&*one, &*two);
  EXPECT_EQ(&*one, &*three);
  EXPECT_EQ(fakes_.loads(), Names({"a"}));
}

TEST_F(ModelPoolTest, TheOneUsedLongestAgoGoes) {
  const auto pool = fakes_.Pool(2);
  Acquire(*pool, "a");
  Acquire(*pool, "b");
  Acquire(*pool, "a");
  ASSERT_TRUE(pool->Look("b").ok());  // which is no use
  Acquire(*pool, "c");
  EXPECT_EQ(fakes_.loaded(), Names({"a", "c"}));
  EXPECT_EQ(fakes_.most_bytes(), 2u);
}

TEST_F(ModelPoolTest, ALongUseEndsWhenItsLeaseDoes) {
  const auto pool = fakes_.Pool(2);
  {
    const ModelLease a = Acquire(*pool, "a");
    Acquire(*pool, "b");
  }
  Acquire(*pool, "c");
  EXPECT_EQ(fakes_.loaded(), Names({"a", "c"}));
}

TEST_F(ModelPoolTest, ALargeModelMakesSeveralGo) {
  fakes_.models["large"] = {.bytes = 3};
  const auto pool = fakes_.Pool(4);
  Acquire(*pool, "a");
  Acquire(*pool, "b");
  Acquire(*pool, "c");
  Acquire(*pool, "large");
  EXPECT_EQ(fakes_.loaded(), Names({"c", "large"}));
  EXPECT_EQ(fakes_.most_bytes(), 4u);
}

TEST_F(ModelPoolTest, AModelInUseStaysAndWhoWaitsLongestIsNext) {
  const auto pool = fakes_.Pool(1);
  ModelLease a = Acquire(*pool, "a");
  Asked b(*pool, "b");
  // From when room is made for b, who comes for a waits behind it.
  Await([&] { return !pool->TryAcquire("a"); });
  Asked again(*pool, "a");
  EXPECT_EQ(a->engine->Stats().running, 0u);  // it is there
  EXPECT_EQ(fakes_.loaded(), Names({"a"}));
  EXPECT_FALSE(b.is_there() || again.is_there());
  a = {};
  ModelLease held = std::move(b.Get()).value();
  EXPECT_EQ(fakes_.loaded(), Names({"b"}));
  EXPECT_FALSE(again.is_there());
  held = {};
  EXPECT_EQ(std::move(again.Get()).value()->model_name, "a");
  EXPECT_EQ(fakes_.loads(), Names({"a", "b", "a"}));
  EXPECT_EQ(fakes_.most_bytes(), 1u);
}

TEST_F(ModelPoolTest, AnIdleModelGoesBeforeOneInUse) {
  const auto pool = fakes_.Pool(2);
  const ModelLease a = Acquire(*pool, "a");
  Acquire(*pool, "b");
  Acquire(*pool, "c");
  EXPECT_EQ(fakes_.loaded(), Names({"a", "c"}));
}

TEST_F(ModelPoolTest, WhenNobodyWaitsAnyMoreAModelInUseIsLentAgain) {
  const auto pool = fakes_.Pool(1);
  const ModelLease a = Acquire(*pool, "a");
  Asked b(*pool, "b");
  Await([&] { return !pool->TryAcquire("a"); });
  Asked again(*pool, "a");
  b.Cancel();
  EXPECT_EQ(&*std::move(again.Get()).value(), &*a);
  EXPECT_EQ(fakes_.loads(), Names({"a"}));
}

TEST_F(ModelPoolTest, AnErrorIsOfThoseWhoWaitAndTheNextOneTriesAnew) {
  fakes_.models["broken"] = {.bytes = 1, .error = Status(StatusCode::kDataLoss, "it is cut off")};
  const auto pool = fakes_.Pool(2);
  const ModelLease a = Acquire(*pool, "a");
  fakes_.loading.Close();
  Asked first(*pool, "broken"), second(*pool, "broken"), other(*pool, "b");
  fakes_.loading.Open();
  for (Asked* asked : {&first, &second}) {
    const Result<ModelLease> result = asked->Get();
    EXPECT_EQ(result.status().code(), StatusCode::kDataLoss);
    EXPECT_EQ(result.status().message(), "cannot load 'broken': it is cut off");
  }
  EXPECT_EQ(std::move(other.Get()).value()->model_name, "b");
  EXPECT_FALSE(Asked(*pool, "broken").Get().ok());
  EXPECT_EQ(std::move(pool->Look("a")).value()->model_name, "a");
  const Names loads = fakes_.loads();
  EXPECT_EQ(std::count(loads.begin(), loads.end(), "broken"), 2);
}

TEST_F(ModelPoolTest, WhatNeverFitsIsRefusedAndMakesNobodyGo) {
  fakes_.models["huge"] = {.bytes = 3};
  const auto pool = fakes_.Pool(2);
  Acquire(*pool, "a");
  const Result<ModelLease> result = Asked(*pool, "huge").Get();
  EXPECT_EQ(result.status().code(), StatusCode::kUnsupported);
  EXPECT_NE(result.status().message().find("--models-memory"), std::string::npos);
  EXPECT_EQ(fakes_.loaded(), Names({"a"}));
}

TEST_F(ModelPoolTest, NoMoreWaitThanMay) {
  const auto pool = fakes_.Pool(2, "", 1);
  fakes_.loading.Close();
  Asked first(*pool, "a");
  EXPECT_EQ(Asked(*pool, "b").Get().status().code(), StatusCode::kResourceExhausted);
  fakes_.loading.Open();
  EXPECT_TRUE(first.Get().ok());
}

TEST_F(ModelPoolTest, EachTenantHasAQueueOfItsOwn) {
  const auto pool = fakes_.Pool(1, "", 1);
  fakes_.loading.Close();
  Asked first(*pool, "a", "one"), second(*pool, "a", "one"), other(*pool, "b", "two");
  EXPECT_EQ(second.Get().status().code(), StatusCode::kResourceExhausted);
  EXPECT_FALSE(other.is_there());
  fakes_.loading.Open();
  EXPECT_TRUE(first.Get().ok());
  EXPECT_TRUE(other.Get().ok());
}

TEST_F(ModelPoolTest, StoppingWhileOneIsLoadedTellsAllWhoWait) {
  auto pool = fakes_.Pool(2);
  fakes_.loading.Close();
  Asked first(*pool, "a"), second(*pool, "b");
  Await([&] { return pool->is_loading(); });
  pool->Stop();
  EXPECT_EQ(first.Get().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(second.Get().status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(Asked(*pool, "a").Get().status().code(), StatusCode::kUnavailable);
  fakes_.loading.Open();
  pool.reset();
  EXPECT_EQ(fakes_.loaded(), Names());
}

TEST_F(ModelPoolTest, NamesAndTheDefault) {
  const auto pool = fakes_.Pool(2, "b");
  EXPECT_EQ(pool->Find("")->name, "b");
  EXPECT_EQ(pool->Find("also:a")->name, "a");
  const Status unknown = pool->Find("d").status();
  EXPECT_EQ(unknown.code(), StatusCode::kNotFound);
  EXPECT_EQ(unknown.message(), "the model 'd' does not exist; this server serves 'a', 'b', 'c'");
  Acquire(*pool, "also:a");
  EXPECT_EQ(pool->TryAcquire("also:a")->model_name, "a");
  EXPECT_EQ(pool->Look("").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(pool->List()->front().info.name, "b");
}

TEST_F(ModelPoolTest, WithoutADefaultTheOnlyOneIsMeant) {
  const auto pool = fakes_.Pool(2);
  EXPECT_EQ(pool->Find("").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(pool->Look("").status().code(), StatusCode::kNotFound);
  Acquire(*pool, "a");
  EXPECT_EQ(std::move(pool->Look("")).value()->model_name, "a");
  Acquire(*pool, "b");
  EXPECT_EQ(pool->Look("").status().code(), StatusCode::kInvalidArgument);
  fakes_.models = {{"a", {}}};
  EXPECT_EQ(pool->Find("")->name, "a");
}

TEST_F(ModelPoolTest, ListsWhatIsLoadedAndHowFar) {
  const auto pool = fakes_.Pool(2);
  Acquire(*pool, "b");
  fakes_.loading.Close();
  Asked c(*pool, "c");
  Await([&] { return pool->is_loading(); });
  const std::vector<ListedModel> list = std::move(pool->List()).value();
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].state, ListedModel::State::kUnloaded);
  EXPECT_EQ(list[1].state, ListedModel::State::kLoaded);
  EXPECT_EQ(list[1].info.fingerprint, "fp_test");
  EXPECT_EQ(list[2].state, ListedModel::State::kLoading);
  EXPECT_EQ(pool->Loaded().size(), 1u);
  fakes_.loading.Open();
  EXPECT_TRUE(c.Get().ok());
}

TEST_F(ModelPoolTest, OneModelThatStaysNeedsNoSource) {
  TestOptions options;
  ModelPool pool(FakeService(options, std::make_unique<FakeModel>(4096, kTestVocab), [] {}));
  EXPECT_FALSE(pool.has_many());
  EXPECT_EQ(pool.TryAcquire("")->model_name, "fake");
  EXPECT_EQ(pool.TryAcquire("fake")->model_name, "fake");
  EXPECT_EQ(pool.Find("other").status().message(),
            "the model 'other' does not exist; this server serves 'fake'");
  EXPECT_EQ(pool.List()->size(), 1u);
}

TEST_F(ModelPoolTest, ManyThreadsNeverSeeAModelGoUnderThem) {
  fakes_.models["large"] = {.bytes = 2};
  const Names names = {"a", "b", "c", "large"};
  const auto pool = fakes_.Pool(3);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 60; i++) {
        const std::string& name = names[random() % names.size()];
        Asked asked(*pool, name);
        if (random() % 8 == 0) asked.Cancel();
        if (!asked.is_there() && random() % 4 == 0) pool->LookAtAll();
        if (random() % 8 == 0) continue;  // its result is destroyed where it comes
        Asked another(*pool, name);
        const ModelLease lease = std::move(another.Get()).value();
        EXPECT_EQ(lease->model_name, name);
        EXPECT_EQ(lease->engine->Stats().running, 0u);
        const Names loaded = fakes_.loaded();
        EXPECT_EQ(std::count(loaded.begin(), loaded.end(), name), 1);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(fakes_.most_bytes(), 3u);
}

}  // namespace
}  // namespace trellis
