#include "server/request_log.h"

#include <gtest/gtest.h>

#include "server/test_support.h"

namespace trellis {
namespace {

using State = LoggedRequest::State;

RequestLog::Changes AllSince(const RequestLog& log, uint64_t since) {
  return log.Since(since, [](const LoggedRequest&) { return true; });
}

LoggedRequest Named(const std::string& id, const std::string& owner = "") {
  LoggedRequest request{.id = id};
  request.owner = request.scope = owner;
  return request;
}

TEST(RequestLogTest, ARequestIsThereFromItsBeginningToItsEnd) {
  RequestLog log;
  RequestLog::Record record = log.Add(Named("a"));
  const RequestLog::Changes waiting = AllSince(log, 0);
  ASSERT_EQ(waiting.requests.size(), 1u);
  EXPECT_EQ(waiting.requests[0].state, State::kWaiting);
  EXPECT_EQ(waiting.requests[0].seq, waiting.seq);

  GenerateTimings timings;
  timings.cached_tokens = 7;
  record.Reach(Stage::kPrompt, timings);
  EXPECT_EQ(AllSince(log, 0).requests[0].state, State::kPrompt);
  EXPECT_EQ(AllSince(log, 0).requests[0].timings.cached_tokens, 7u);

  record.Reach(Stage::kGenerating, timings);
  record.CountToken();
  record.CountToken();
  const RequestLog::Changes generating = AllSince(log, 0);
  EXPECT_EQ(generating.requests[0].state, State::kGenerating);
  EXPECT_EQ(generating.requests[0].timings.generated_tokens, 2u);
  EXPECT_EQ(AllSince(log, generating.seq).requests.size(), 1u) << "as it has not finished";

  timings.generated_tokens = 3;
  record.Finish(FinishReason::kLength, timings);
  const RequestLog::Changes finished = AllSince(log, generating.seq);
  ASSERT_EQ(finished.requests.size(), 1u);
  const LoggedRequest& request = finished.requests[0];
  EXPECT_EQ(request.state, State::kFinished);
  EXPECT_EQ(request.reason, FinishReason::kLength);
  EXPECT_EQ(request.timings.generated_tokens, 3u);
  EXPECT_LE(request.submitted, request.admitted);
  EXPECT_LE(request.admitted, request.first_token);
  EXPECT_LE(request.first_token, request.finished);
  EXPECT_TRUE(AllSince(log, finished.seq).requests.empty());
}

TEST(RequestLogTest, WhatWasRefusedIsForgotten) {
  RequestLog log;
  { const RequestLog::Record record = log.Add(Named("refused")); }
  EXPECT_TRUE(AllSince(log, 0).requests.empty());
}

TEST(RequestLogTest, EachOwnersLastOnesAreKept) {
  RequestLog log;
  log.Add(Named("quiet", "one")).Finish(FinishReason::kStop, {});
  for (size_t i = 0; i < RequestLog::kMaxFinished + 10; i++) {
    log.Add(Named(std::to_string(i), "two")).Finish(FinishReason::kStop, {});
  }
  const auto of = [&](const std::string& owner) {
    return log.Since(0, [&](const LoggedRequest& request) { return request.owner == owner; });
  };
  ASSERT_EQ(of("one").requests.size(), 1u);
  ASSERT_EQ(of("two").requests.size(), RequestLog::kMaxFinished);
  EXPECT_EQ(of("two").requests.front().id, "10");
  EXPECT_EQ(AllSince(log, 0).requests.size(), RequestLog::kMaxFinished) << "of all together";
}

// --- GET /v1/requests ---

constexpr const char* kCompletions = "/v1/completions";

TEST(RequestListTest, SaysWhatARequestDoes) {
  TestServer server;
  server.Load();
  server.gate().Close();
  Client client(server), other(server);
  client.SendRequest("POST", kCompletions, R"({"prompt":"abcdefgh","max_tokens":3})");
  Json begun;
  do {
    begun = other.Get("/v1/requests").json();
  } while (begun["requests"].empty() || begun["requests"][0]["state"] == "waiting");
  ASSERT_EQ(begun["requests"].size(), 1u);
  EXPECT_EQ(begun["requests"][0]["state"], "prompt");
  EXPECT_EQ(begun["requests"][0]["first_token_at"], nullptr);
  server.gate().Open();
  const Json answer = client.Read().json();

  const std::string since = std::to_string(begun["seq"].get<uint64_t>());
  const Json done = other.Get("/v1/requests?since=" + since).json();
  ASSERT_EQ(done["requests"].size(), 1u);
  const Json& request = done["requests"][0];
  EXPECT_EQ(request["id"], answer["id"]);
  EXPECT_EQ(request["state"], "finished");
  EXPECT_EQ(request["finish_reason"], "length");
  EXPECT_EQ(request["prompt_tokens"], answer["usage"]["prompt_tokens"]);
  EXPECT_EQ(request["generated_tokens"], 3);
  EXPECT_EQ(request["missed"], Json({{"cold", request["computed_tokens"]}}));
  // The node is one of the tree's.
  bool is_there = false;
  const Json tree = other.Get("/v1/cache/tree").json();
  for (const Json& node : tree["nodes"]) is_there |= node["id"] == request["node"];
  EXPECT_TRUE(is_there) << request << tree;
  const std::string last = std::to_string(done["seq"].get<uint64_t>());
  EXPECT_TRUE(other.Get("/v1/requests?since=" + last).json()["requests"].empty());
  EXPECT_EQ(other.Get("/v1/requests?since=-1").status, 400u);
}

TEST(RequestListTest, ARefusedRequestIsNotThere) {
  TestServer server([](TestOptions& options) { options.max_queue = 1; });
  server.Load();
  server.gate().Close();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 70; i++) {  // a batch of 64, and one that waits
    clients.push_back(std::make_unique<Client>(server));
    clients.back()->SendRequest("POST", kCompletions, R"({"prompt":"q","max_tokens":1})");
  }
  server.Await([](const EngineStats& s) { return s.rejected_total > 0; });
  const EngineStats stats = server.engine().Stats();
  const size_t shown = Client(server).Get("/v1/requests").json()["requests"].size();
  EXPECT_LE(shown, 70 - stats.rejected_total);
  server.gate().Open();
}

TEST(RequestListTest, AKeySeesItsOwnScopeAndAnAdminAllButTexts) {
  TestServer server([](TestOptions& options) {
    options.server.keys = std::move(*ApiKeys::Parse("one\ntwo\nboss admin\n"));
  });
  server.Load();
  const auto send = [&](const std::string& verb, const std::string& path, const std::string& key,
                        const std::string& body = "") {
    Client client(server);
    client.SendRequest(verb, path, body, "Authorization: Bearer " + key + "\r\n");
    return client.Read();
  };
  const auto ask = [&](const std::string& key, const std::string& end, const std::string& salt) {
    const Json body = {
        {"prompt", std::string(70, 'k') + end}, {"max_tokens", 1}, {"cache_salt", salt}};
    EXPECT_EQ(send("POST", kCompletions, key, body.dump()).status, 200u);
  };
  ask("one", "mine", "");
  ask("one", "zzzz", "");  // goes on otherwise than the first one
  ask("one", "salted", "s");
  ask("two", "other", "");

  const Json own = send("GET", "/v1/requests", "one").json();
  ASSERT_EQ(own["requests"].size(), 2u);
  const Json& diverged = own["requests"][1]["diverged"];
  EXPECT_EQ(diverged["prompt"], "zzzz");
  EXPECT_EQ(diverged["cached"].get<std::string>().substr(0, 4), "mine");
  EXPECT_EQ(send("GET", "/v1/requests?cache_salt=s", "one").json()["requests"].size(), 1u);
  EXPECT_EQ(send("GET", "/v1/requests?cache_salt=s", "two").json()["requests"].size(), 0u);

  const Json all = send("GET", "/v1/requests", "boss").json();
  ASSERT_EQ(all["requests"].size(), 4u);
  EXPECT_EQ(all["requests"][1]["diverged"]["position"], diverged["position"]);
  EXPECT_EQ(all.dump().find("zzzz"), std::string::npos);
  EXPECT_EQ(send("GET", "/v1/requests", "wrong").status, 401u);
}

TEST(RequestListTest, WithoutKeysOrASaltNobodysTextIsShown) {
  TestServer server;
  server.Load();
  Client client(server);
  for (const char* salt : {"", "s"}) {
    for (const char* end : {"mine", "zzzz"}) {
      client.Post(
          kCompletions,
          {{"prompt", std::string(70, 'k') + end}, {"max_tokens", 1}, {"cache_salt", salt}});
    }
  }
  const Json all = client.Get("/v1/requests").json();
  ASSERT_EQ(all["requests"].size(), 4u);
  EXPECT_FALSE(all["requests"][1]["diverged"].contains("prompt"));
  const Json salted = client.Get("/v1/requests?cache_salt=s").json();
  EXPECT_FALSE(salted["requests"][1]["diverged"].contains("prompt"));
  EXPECT_EQ(salted["requests"][3]["diverged"]["prompt"], "zzzz");
}

}  // namespace
}  // namespace trellis
