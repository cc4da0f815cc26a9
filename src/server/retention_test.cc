// Prompts that are computed ahead of time, and that stay cached for a time; the best of several.
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "server/test_support.h"

namespace trellis {
namespace {

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

class RetentionApiTest : public testing::Test {
 protected:
  RetentionApiTest()
      : server_([](TestOptions& options) {
          options.num_pages = 40;
          options.server.keys = std::move(ApiKeys::Parse("a\nb\nboss admin\n")).value();
        }) {
    server_.Load();
  }
  Answer Send(const std::string& path, const Json& body, const std::string& key = "a") {
    Client client(server_);
    client.SendRequest(body.is_null() ? "GET" : "POST", path, body.is_null() ? "" : body.dump(),
                       "x-api-key: " + key + "\r\n");
    return client.Read();
  }
  void Flood() {
    for (int i = 0; i < 30; i++) {
      Send(kCompletions,
           {{"prompt", std::to_string(i) + std::string(300, 'z')}, {"max_tokens", 1}});
    }
  }
  // Without leaving anything behind that was not there.
  int Cached(const Json& body, const char* path = kCompletions) {
    Json request = body;
    request["max_tokens"] = 1;
    return Send(path, request).json()["usage"]["prompt_tokens_details"]["cached_tokens"];
  }
  Json Pins() { return Send("/v1/cache", nullptr).json()["pins"]; }

  TestServer server_;
};

TEST_F(RetentionApiTest, WarmingComputesAPromptAheadOfTime) {
  const Json body = {{"prompt", std::string(100, 'w')}};
  const Json warmed = Send("/v1/cache/warm", body).json();
  EXPECT_EQ(warmed["object"], "cache.warm");
  EXPECT_EQ(warmed["computed_tokens"], warmed["prompt_tokens"]);
  EXPECT_EQ(warmed["pinned_tokens"], 0);
  EXPECT_TRUE(warmed["pins"].empty());
  EXPECT_EQ(Cached(body), warmed["prompt_tokens"].get<int>() - 1);
  const Json again = Send("/v1/cache/warm", body).json();
  EXPECT_EQ(again["computed_tokens"], 1);
  // Whatever it says of an answer: there is none.
  const Json chat = Send("/v1/cache/warm", {{"messages", {{{"role", "user"}, {"content", "hi"}}}},
                                            {"stream", true},
                                            {"n", 4},
                                            {"max_tokens", 500}})
                        .json();
  EXPECT_EQ(chat["object"], "cache.warm");
  EXPECT_EQ(Send("/v1/cache/warm", {{"prompt", 3}}).status, 400u);
  EXPECT_EQ(Send("/v1/cache/warm", {{"prompt", "a"}, {"ttl", 5}}).status, 400u)
      << "it keeps nothing";
  EXPECT_EQ(Send("/v1/cache/warm", {{"model", "other"}, {"prompt", "a"}}).status, 404u);
}

TEST_F(RetentionApiTest, APinOutlivesAFloodUntilItIsUnpinned) {
  const Json body = {{"prompt", std::string(100, 'p')}};
  Json request = body;
  request["ttl"] = "1h";
  const Json pinned = Send("/v1/cache/pin", request).json();
  EXPECT_EQ(pinned["object"], "cache.pin");
  EXPECT_EQ(pinned["pinned_tokens"], 96);
  const auto now = std::chrono::system_clock::now().time_since_epoch() / std::chrono::seconds(1);
  EXPECT_EQ(pinned["pins"][0]["tokens"], 96);
  EXPECT_NEAR(pinned["pins"][0]["expires_at"].get<double>(), static_cast<double>(now + 3600), 60);
  EXPECT_EQ(Pins(), (Json{{"count", 1}, {"pages", 3}, {"max_pages", 10}}));
  Flood();
  EXPECT_EQ(Cached(body), 96);

  const Json unpin = {{"pin", pinned["pins"][0]["pin"]}};
  EXPECT_EQ(Send("/v1/cache/unpin", unpin, "b").status, 404u) << "it is not b's";
  EXPECT_EQ(Send("/v1/cache/unpin", unpin).json()["unpinned"], 1);
  EXPECT_EQ(Send("/v1/cache/unpin", unpin).status, 404u);
  EXPECT_EQ(Send("/v1/cache/unpin", {{"pin", 5}}).status, 400u);
  Flood();
  EXPECT_LE(Cached(body), 2) << "what every prompt begins with";
  Send("/v1/cache/pin", request);
  EXPECT_EQ(Send("/v1/cache/unpin", {{"all", true}}, "b").json()["unpinned"], 0);
  EXPECT_EQ(Send("/v1/cache/unpin", {{"all", true}}).json()["unpinned"], 1);
}

TEST_F(RetentionApiTest, PinsAreListedToTheirKeyAndToAnAdmin) {
  const auto pin = [&](char letter, size_t size, int ttl, const char* key) {
    const Json request = {{"prompt", std::string(size, letter)}, {"ttl", ttl}};
    return Send("/v1/cache/pin", request, key).json()["pins"][0];
  };
  const auto list = [&](const char* key) {
    return Send("/v1/cache/pins", nullptr, key).json()["pins"];
  };
  EXPECT_EQ(list("a"), Json::array());
  const Json later = pin('p', 100, 3000, "a"), sooner = pin('q', 40, 600, "a");
  const Json others = pin('r', 70, 60, "b");
  const Json own = list("a");
  ASSERT_EQ(own.size(), 2u) << own;
  EXPECT_EQ(own[0]["pin"], sooner["pin"]);
  EXPECT_EQ(own[0]["tokens"], 32);
  EXPECT_EQ(own[0]["pages"], 1);
  EXPECT_EQ(own[0]["own"], true);
  EXPECT_EQ(own[1]["pin"], later["pin"]);
  EXPECT_EQ(own[1]["tokens"], 96);
  EXPECT_NEAR(own[1]["expires_at"].get<double>(), later["expires_at"].get<double>(), 2);
  const Json all = list("boss");
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0]["pin"], others["pin"]);
  EXPECT_EQ(all[0]["own"], false);
  Send("/v1/cache/unpin", {{"pin", own[0]["pin"]}});
  EXPECT_EQ(list("a").size(), 1u);
}

TEST_F(RetentionApiTest, APinSaysWhatItHoldsAndUntilWhen) {
  const auto pin = [&](Json prompt, Json ttl) {
    return Send("/v1/cache/pin", {{"prompt", prompt}, {"ttl", ttl}}).json();
  };
  const Json both = pin({std::string(40, 'p'), std::string(70, 'q')}, 600)["pins"];
  ASSERT_EQ(both.size(), 2u) << "one of each prompt";
  EXPECT_EQ(both[0]["tokens"], 32);
  EXPECT_EQ(both[1]["tokens"], 64);
  EXPECT_NE(both[0]["pin"], both[1]["pin"]);
  const Json sooner = pin(std::string(70, 'q'), 1)["pins"][0];
  EXPECT_EQ(sooner["pin"], both[1]["pin"]);
  EXPECT_NEAR(sooner["expires_at"].get<double>(), both[1]["expires_at"].get<double>(), 2)
      << "it stays for as long as it was to";
  const Json later = pin(std::string(100, 'q'), "1h")["pins"][0];
  EXPECT_EQ(later["pin"], both[1]["pin"]) << "one that goes on is the same";
  EXPECT_GT(later["expires_at"], both[1]["expires_at"]);
  EXPECT_EQ(Send("/v1/cache/unpin", {{"pin", later["pin"]}}).json()["unpinned"], 1);
  EXPECT_EQ(Pins()["count"], 1);

  const Json none = pin("a", 600);
  EXPECT_EQ(none["object"], "cache.pin");
  EXPECT_TRUE(none["pins"].empty()) << "no whole page";
  const Json day =
      Send("/v1/cache/pin", {{"prompt", std::string(40, 'd')}, {"prompt_cache_retention", "24h"}})
          .json()["pins"][0];
  const auto now = std::chrono::system_clock::now().time_since_epoch() / std::chrono::seconds(1);
  EXPECT_NEAR(day["expires_at"].get<double>(), static_cast<double>(now + 24 * 3600), 60);
  EXPECT_EQ(Send("/v1/cache/pin", {{"prompt", "a"}, {"messages", Json::array()}}).status, 400u);
  const Json wrong = Send("/v1/cache/pin", {{"prompt", "a"}, {"ttl", true}}).json()["error"];
  EXPECT_EQ(wrong["param"], "ttl");
  EXPECT_NE(wrong["message"].get<std::string>().find("seconds"), std::string::npos);
}

TEST_F(RetentionApiTest, ARequestsOwnMarksAreKept) {
  const std::string harness(150, 's');
  const Json marked = {
      {"messages",
       {{{"role", "system"},
         {"content",
          {{{"type", "text"}, {"text", harness}, {"cache_control", {{"type", "ephemeral"}}}}}}},
        {{"role", "user"}, {"content", std::string(100, 'u')}}}},
      {"max_tokens", 2}};
  const Json answer = Send(kChat, marked).json();
  const int pinned = answer["timings"]["pinned_n"];
  EXPECT_GE(pinned, 128);
  EXPECT_LE(pinned, 192) << "the mark is behind the system prompt";
  Flood();
  EXPECT_EQ(Cached(marked, kChat), pinned);

  const Json whole = {
      {"prompt", std::string(130, 'q')}, {"prompt_cache_retention", "24h"}, {"max_tokens", 2}};
  EXPECT_EQ(Send(kCompletions, whole).json()["timings"]["pinned_n"], 128);
  const Json unmarked = {{"prompt", std::string(130, 'r')}, {"max_tokens", 2}};
  EXPECT_FALSE(Send(kCompletions, unmarked).json()["timings"].contains("pinned_n"));
}

TEST_F(RetentionApiTest, AResetUnpins) {
  Send("/v1/cache/pin", {{"prompt", std::string(100, 'p')}});
  EXPECT_EQ(Pins()["count"], 1);
  EXPECT_EQ(Send("/v1/cache/reset", Json::object(), "boss").status, 200u);
  EXPECT_EQ(Pins()["count"], 0);
}

// --- The best of several ---

TEST_F(RetentionApiTest, TheBestOfSeveralAreThoseWhoseTokensAreLikeliest) {
  const Json request = {
      {"prompt", "abc"}, {"max_tokens", 6}, {"seed", 3}, {"temperature", 1.5}, {"logprobs", 0}};
  Json all = request, best = request;
  all["n"] = 8;
  best["n"] = 2;
  best["best_of"] = 8;
  const Json samples = Send(kCompletions, all).json();
  const Json answer = Send(kCompletions, best).json();
  std::multimap<double, std::string, std::greater<>> ranked;
  for (const Json& choice : samples["choices"]) {
    double sum = 0;
    for (const Json& logprob : choice["logprobs"]["token_logprobs"]) sum += logprob.get<double>();
    ranked.emplace(sum / static_cast<double>(choice["logprobs"]["tokens"].size()), choice["text"]);
  }
  ASSERT_EQ(answer["choices"].size(), 2u);
  auto expected = ranked.begin();
  for (size_t i = 0; i < 2; i++, ++expected) {
    EXPECT_EQ(answer["choices"][i]["index"], i);
    EXPECT_EQ(answer["choices"][i]["text"], expected->second);
  }
  EXPECT_EQ(answer["usage"]["completion_tokens"], samples["usage"]["completion_tokens"]);
  best.erase("logprobs");
  const Json without = Send(kCompletions, best).json();
  EXPECT_EQ(without["choices"][0]["text"], answer["choices"][0]["text"]);
  EXPECT_TRUE(without["choices"][0]["logprobs"].is_null());
}

// One prefill, and each sample is what its seed gives alone.
TEST_F(RetentionApiTest, SamplesShareThePrompt) {
  const Json request = {{"prompt", std::string(500, 'f')}, {"max_tokens", 8}, {"seed", 11}};
  Json forked = request;
  forked["n"] = 5;
  const Json together = Send(kCompletions, forked).json();
  EXPECT_EQ(together["timings"]["prompt_n"].get<size_t>(),
            together["usage"]["prompt_tokens"].get<size_t>() + 4)
      << "and its last row for each other";
  for (size_t i = 0; i < 5; i++) {
    Json alone = request;
    alone["seed"] = 11 + i;
    EXPECT_EQ(Send(kCompletions, alone, "b").json()["choices"][0]["text"],
              together["choices"][i]["text"]);
  }
}

}  // namespace
}  // namespace trellis
