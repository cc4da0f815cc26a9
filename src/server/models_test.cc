// Several models behind one server: who is meant, who waits, and what is said of them.
#include <gtest/gtest.h>

#include "server/fake_models.h"

namespace trellis {
namespace {

constexpr const char* kChat = "/v1/chat/completions";

Json ChatWith(const std::string& model, const Json& more = Json::object()) {
  Json body = {{"messages", {{{"role", "user"}, {"content", "hello"}}}}, {"max_tokens", 3}};
  if (!model.empty()) body["model"] = model;
  body.update(more);
  return body;
}

Json ResponseTo(const std::string& model) {
  return {{"model", model}, {"input", "hi"}, {"max_output_tokens", 3}};
}

const Json kShortForOllama = {{"stream", false}, {"options", {{"num_predict", 3}}}};

class ModelsTest : public ::testing::Test {
 protected:
  ModelsTest() { fakes_.models = {{"one", {}}, {"two", {}}}; }

  // Until `text` has come.
  static std::string ReadUntil(Client& client, const std::string& text) {
    std::string all;
    while (all.find(text) == std::string::npos) {
      const std::string more = client.ReadSome(1000);
      if (more.empty()) ADD_FAILURE() << "the stream ended: " << all;
      if (more.empty()) break;
      all += more;
    }
    return all;
  }
  void AwaitLoad(size_t number) {
    while (fakes_.loads().size() < number) std::this_thread::sleep_for(kMoment);
  }
  static constexpr std::chrono::milliseconds kMoment{1};

  FakeModels fakes_;
};

TEST_F(ModelsTest, EveryApiNamesThem) {
  TestServer server;
  server.Serve(fakes_.Pool(2));
  Client client(server);
  for (const std::string model : {"one", "two"}) {
    EXPECT_EQ(client.Post(kChat, ChatWith(model)).json()["model"], model);
    EXPECT_EQ(client.Post("/v1/completions", {{"model", model}, {"prompt", "hi"}}).json()["model"],
              model);
    EXPECT_EQ(client.Post("/v1/messages", ChatWith(model)).json()["model"], model);
    EXPECT_EQ(client.Post("/v1/responses", ResponseTo(model)).json()["model"], model);
    EXPECT_EQ(client.Post("/v1/embeddings", {{"model", model}, {"input", "hi"}}).json()["model"],
              model);
    EXPECT_EQ(
        client.Post("/api/chat", ChatWith(model + ":latest", kShortForOllama)).json()["model"],
        model);
    EXPECT_EQ(client.Post("/api/embed", {{"model", model}, {"input", "hi"}}).json()["model"],
              model);
    EXPECT_EQ(client.Post("/completion", {{"model", model}, {"prompt", "a"}, {"n_predict", 2}})
                  .json()["model"],
              model);
    EXPECT_EQ(client.Get("/props?model=" + model).json()["model_alias"], model);
  }
  EXPECT_EQ(fakes_.loads(), std::vector<std::string>({"one", "two"}));
  EXPECT_EQ(client.Post(kChat, ChatWith("also:one")).json()["model"], "one");
}

TEST_F(ModelsTest, ANameIsNeededUnlessOneIsTheDefault) {
  TestServer server, with_default;
  server.Serve(fakes_.Pool(2));
  with_default.Serve(fakes_.Pool(2, "two"));
  Client client(server);
  const Answer unnamed = client.Post(kChat, ChatWith(""));
  EXPECT_EQ(unnamed.status, 400u);
  EXPECT_EQ(unnamed.json()["error"]["param"], "model");
  const Answer unknown = client.Post(kChat, ChatWith("three"));
  EXPECT_EQ(unknown.status, 404u);
  EXPECT_EQ(unknown.json()["error"]["code"], "model_not_found");
  EXPECT_EQ(client.Post("/v1/messages", ChatWith("three")).json()["error"]["type"],
            "not_found_error");
  EXPECT_EQ(client.Post("/api/generate", {{"model", "three"}}).status, 404u);
  EXPECT_EQ(client.Post(kChat, ChatWith("", {{"model", 3}})).json()["error"]["code"],
            "invalid_type");
  client.SendRequest("POST", kChat, "{");
  EXPECT_EQ(client.Read().status, 400u);
  EXPECT_EQ(fakes_.loads().size(), 0u);
  Client other(with_default);
  EXPECT_EQ(other.Post(kChat, ChatWith("")).json()["model"], "two");
}

TEST_F(ModelsTest, AStreamSaysThatItWaitsForItsModel) {
  TestServer server([](TestOptions& options) {
    options.server.keep_alive_interval = std::chrono::milliseconds(5);
  });
  server.Serve(fakes_.Pool(1));
  fakes_.loading.Close();
  Client chat(server), claude(server), whole(server);
  chat.SendRequest("POST", kChat, ChatWith("one", {{"stream", true}}).dump());
  claude.SendRequest("POST", "/v1/messages", ChatWith("one", {{"stream", true}}).dump());
  whole.SendRequest("POST", kChat, ChatWith("one").dump());
  EXPECT_NE(ReadUntil(chat, ": waiting\n\n").find("200 OK"), std::string::npos);
  EXPECT_NE(ReadUntil(claude, "event: ping\n").find("200 OK"), std::string::npos);
  fakes_.loading.Open();
  EXPECT_NE(ReadUntil(chat, "[DONE]").find("\"finish_reason\":\"length\""), std::string::npos);
  ReadUntil(claude, "event: message_stop");
  EXPECT_EQ(whole.Read().status, 200u);
  EXPECT_EQ(fakes_.loads().size(), 1u);
}

TEST_F(ModelsTest, ALoadErrorIsThatRequestsAlone) {
  fakes_.models["broken"] = {.bytes = 1, .error = Status(StatusCode::kDataLoss, "it is cut off")};
  TestServer server([](TestOptions& options) {
    options.server.keep_alive_interval = std::chrono::milliseconds(5);
  });
  server.Serve(fakes_.Pool(1));
  fakes_.loading.Close();
  Client stream(server), whole(server), other(server);
  stream.SendRequest("POST", kChat, ChatWith("broken", {{"stream", true}}).dump());
  whole.SendRequest("POST", kChat, ChatWith("broken").dump());
  ReadUntil(stream, ": waiting\n\n");
  AwaitLoad(1);
  other.SendRequest("POST", kChat, ChatWith("one").dump());
  fakes_.loading.Open();
  EXPECT_NE(ReadUntil(stream, "[DONE]").find("cannot load 'broken': it is cut off"),
            std::string::npos);
  const Answer answer = whole.Read();
  EXPECT_EQ(answer.status, 500u);
  EXPECT_EQ(answer.json()["error"]["code"], "data_loss");
  EXPECT_EQ(other.Read().json()["model"], "one");
}

TEST_F(ModelsTest, AFieldThatIsWrongIsSaidInAStreamThatHasBegun) {
  TestServer server([](TestOptions& options) {
    options.server.keep_alive_interval = std::chrono::milliseconds(5);
  });
  server.Serve(fakes_.Pool(1));
  fakes_.loading.Close();
  Client client(server);
  client.SendRequest("POST", kChat,
                     ChatWith("one", {{"stream", true}, {"temperature", -1}}).dump());
  ReadUntil(client, ": waiting\n\n");
  fakes_.loading.Open();
  EXPECT_NE(ReadUntil(client, "[DONE]").find("\"param\":\"temperature\""), std::string::npos);
}

TEST_F(ModelsTest, WhoLeavesOrIsLateWaitsForNoModel) {
  TestServer server;
  server.Serve(fakes_.Pool(1));
  fakes_.loading.Close();
  Client late(server), other(server);
  {
    Client leaving(server);
    leaving.SendRequest("POST", kChat, ChatWith("one").dump());
    AwaitLoad(1);
    leaving.SendRequest("POST", kChat, ChatWith("two").dump());
  }
  late.SendRequest("POST", kChat, ChatWith("two").dump(), "x-request-timeout: 0.01\r\n");
  EXPECT_EQ(late.Read().status, 504u);
  late.SendRequest("POST", "/tokenize", R"({"model":"two","content":"a"})",
                   "x-request-timeout: 0.01\r\n");
  EXPECT_EQ(late.Read().status, 504u);
  late.SendRequest("POST", "/tokenize", R"({"content":"a"})", "x-request-timeout: soon\r\n");
  EXPECT_EQ(late.Read().status, 400u);
  other.SendRequest("POST", kChat, ChatWith("one").dump());
  fakes_.loading.Open();
  EXPECT_EQ(other.Read().json()["model"], "one");
  EXPECT_EQ(fakes_.loads(), std::vector<std::string>({"one"})) << "nobody wanted two any more";
}

TEST_F(ModelsTest, AnswersInProgressGoOnWhileAnotherModelIsLoaded) {
  TestServer server;
  server.Serve(fakes_.Pool(2));
  Client busy(server), waiting(server);
  busy.Post(kChat, ChatWith("one"));
  fakes_.loading.Close();
  waiting.SendRequest("POST", kChat, ChatWith("two").dump());
  AwaitLoad(2);
  EXPECT_EQ(busy.Post(kChat, ChatWith("one", {{"max_tokens", 200}})).status, 200u);
  EXPECT_FALSE(waiting.HasSomething());
  fakes_.loading.Open();
  EXPECT_EQ(waiting.Read().json()["model"], "two");
}

TEST_F(ModelsTest, ListsSayWhichAreLoaded) {
  TestServer server;
  server.Serve(fakes_.Pool(2, "two"));
  Client client(server);
  EXPECT_EQ(client.Get("/health").status, 200u);
  EXPECT_EQ(client.Get("/api/ps").json()["models"], Json::array());
  client.Post(kChat, ChatWith("one"));
  const Json list = client.Get("/v1/models").json()["data"];
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["id"], "two");
  EXPECT_EQ(list[0]["status"]["value"], "unloaded");
  EXPECT_EQ(list[1]["status"]["value"], "loaded");
  EXPECT_EQ(client.Get("/v1/models/one").json()["status"]["value"], "loaded");
  EXPECT_EQ(client.Get("/v1/models/also:two").json()["id"], "two");
  EXPECT_EQ(client.Get("/v1/models/three").status, 404u);
  EXPECT_EQ(client.Get("/api/tags").json()["models"].size(), 2u);
  const Json ps = client.Get("/api/ps").json()["models"];
  ASSERT_EQ(ps.size(), 1u);
  EXPECT_EQ(ps[0]["name"], "one");
  EXPECT_EQ(client.Post("/api/show", {{"model", "two:latest"}}).json()["template"], "of two");
  EXPECT_EQ(fakes_.loads().size(), 1u) << "to show a model does not load it";
  // Ollama's clients load a model by a chat without messages.
  EXPECT_EQ(client.Post("/api/chat", {{"model", "two"}, {"stream", false}}).status, 200u);
  EXPECT_EQ(client.Get("/api/ps").json()["models"].size(), 2u);
}

TEST_F(ModelsTest, WhatLooksAtAModelDoesNotLoadIt) {
  TestServer server;
  server.Serve(fakes_.Pool(2));
  Client client(server);
  EXPECT_EQ(client.Get("/v1/cache").status, 404u);
  EXPECT_EQ(client.Get("/v1/cache?model=one").status, 404u);
  EXPECT_EQ(client.Get("/metrics").status, 200u);
  EXPECT_EQ(fakes_.loads().size(), 0u);
  client.Post(kChat, ChatWith("one"));
  EXPECT_EQ(client.Get("/v1/cache").json()["lookups"], 1);
  EXPECT_EQ(client.Get("/v1/requests").json()["requests"].size(), 1u);
  client.Post(kChat, ChatWith("two"));
  client.Post(kChat, ChatWith("two", {{"seed", 1}}));
  EXPECT_EQ(client.Get("/v1/cache").status, 400u) << "which one?";
  EXPECT_EQ(client.Get("/v1/cache?model=two").json()["lookups"], 2);
  EXPECT_EQ(client.Get("/v1/requests?model=two").json()["requests"].size(), 2u);
  EXPECT_EQ(client.Get("/v1/cache/tree?model=one").status, 200u);
  EXPECT_EQ(client.Get("/v1/cache/tree?model=three").status, 404u);
  const std::string metrics = client.Get("/metrics").body;
  EXPECT_NE(metrics.find("trellis_requests_total{model=\"one\"} 1\n"), std::string::npos);
  EXPECT_NE(metrics.find("trellis_requests_total{model=\"two\"} 2\n"), std::string::npos);
  EXPECT_NE(metrics.find("trellis_request_success_total{model=\"two\",finished_reason="),
            std::string::npos);
  EXPECT_NE(metrics.find("trellis_request_prompt_tokens_bucket{model=\"one\",le=\"+Inf\"} 1\n"),
            std::string::npos);
  const std::string head = "# TYPE trellis_requests_total counter\n";
  EXPECT_EQ(metrics.find(head), metrics.rfind(head));

  client.Post("/v1/cache/reset", {{"model", "two"}});
  EXPECT_EQ(client.Get("/v1/cache?model=two").json()["lookups"], 0);
  EXPECT_EQ(client.Get("/v1/cache?model=one").json()["lookups"], 1);
  client.Post("/v1/cache/reset", Json::object());
  EXPECT_EQ(client.Get("/v1/cache?model=one").json()["lookups"], 0);
}

TEST_F(ModelsTest, StopsWhileAModelIsLoaded) {
  TestServer server;
  server.Serve(fakes_.Pool(1));
  fakes_.loading.Close();
  Client client(server);
  client.SendRequest("POST", kChat, ChatWith("one").dump());
  AwaitLoad(1);
  server.Stop();
  EXPECT_EQ(client.Read().status, 503u);
  fakes_.loading.Open();
}

TEST_F(ModelsTest, AResponseIsKnownWhenItsModelIsNoLonger) {
  TestServer server;
  server.Serve(fakes_.Pool(1));
  Client client(server);
  const Json first = client.Post("/v1/responses", ResponseTo("one")).json();
  client.Post(kChat, ChatWith("two"));
  EXPECT_EQ(fakes_.loaded(), std::vector<std::string>({"two"}));
  Json next = ResponseTo("one");
  next["previous_response_id"] = first["id"];
  EXPECT_EQ(client.Post("/v1/responses", next).status, 200u);
}

}  // namespace
}  // namespace trellis
