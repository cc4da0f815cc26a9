// Chat and text completions against a model whose answers are known from the tokens alone.
#include <gtest/gtest.h>

#include <regex>

#include "server/test_support.h"

namespace trellis {
namespace {

constexpr const char* kCompletions = "/v1/completions";
constexpr const char* kChat = "/v1/chat/completions";

Json Streamed(Json request) {
  request["stream"] = true;
  return request;
}

TEST(GenerationTest, AnswersAreTheModels) {
  TestServer server;
  server.Load();
  Client client(server);
  const Tokens ids = {40, 41, 42, 43};
  const Tokens text =
      server.tokenizer().Encode("hello you", AddSpecial::kByVocabulary, SpecialTokens::kParse);
  const Json answer = client
                          .Post(kCompletions, {{"prompt", {ids, "hello you"}},
                                               {"n", 3},
                                               {"seed", 7},
                                               {"max_tokens", 20},
                                               {"temperature", 0.8}})
                          .json();
  ASSERT_EQ(answer["choices"].size(), 6u);
  for (size_t i = 0; i < 6; i++) {
    const Json& choice = answer["choices"][i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["finish_reason"], "length");
    const SamplingParams sampling{.temperature = 0.8f, .seed = 7 + i % 3};
    EXPECT_EQ(choice["text"], server.ReferenceText(i < 3 ? ids : text, sampling, 20)) << i;
  }
  EXPECT_EQ(answer["seed"], 7);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 120);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], ids.size() + text.size());  // once for three answers
}

// The model chooses among all tokens as if it drew lots: nothing but the grammar keeps it to
// anything.
TEST(GenerationTest, AnswersKeepToTheirFormat) {
  TestServer server([](TestOptions& options) { options.end_tokens = {kEnd}; });
  server.Load();
  Client client(server);
  const Json schema = {{"type", "object"},
                       {"properties",
                        {{"age", {{"type", "integer"}, {"minimum", 1}, {"maximum", 99}}},
                         {"kind", {{"enum", {"x", "yy"}}}},
                         {"name", {{"type", "string"}, {"maxLength", 8}}}}},
                       {"required", {"age", "kind", "name"}},
                       {"additionalProperties", false}};
  Json request = {{"prompt", "a"}, {"max_tokens", 400}, {"n", 8}, {"ignore_eos", true}};
  request["response_format"] = {{"type", "json_schema"},
                                {"json_schema", {{"name", "n"}, {"schema", schema}}}};
  for (const float temperature : {0.0f, 1.0f}) {
    request["temperature"] = temperature;
    const Answer answer = client.Post(kCompletions, request);
    ASSERT_EQ(answer.status, 200u) << answer.body;
    const Json parsed = answer.json();
    for (const Json& choice : parsed["choices"]) {
      EXPECT_EQ(choice["finish_reason"], "stop");
      const Json value = Json::parse(choice["text"].get<std::string>(), nullptr, false);
      ASSERT_TRUE(value.is_object()) << choice;
      EXPECT_EQ(value.size(), 3u);
      EXPECT_GE(value["age"], 1);
      EXPECT_LE(value["age"], 99);
      EXPECT_TRUE(value["kind"] == "x" || value["kind"] == "yy") << value;
      EXPECT_TRUE(value["name"].is_string());
    }
  }
  Json chat = {{"messages", {{{"role", "user"}, {"content", "hi"}}}},
               {"grammar", "root ::= \"yes\" | \"no\""},
               {"stream", true}};
  const std::vector<std::string> events = EventsOf(client.Post(kChat, chat).body);
  std::string said;
  for (const std::string& event : events) {
    if (event == "[DONE]") continue;
    said += Json::parse(event)["choices"][0]["delta"].value("content", "");
  }
  EXPECT_TRUE(said == "yes" || said == "no") << said;
}

TEST(GenerationTest, AFormatThatCannotBeUsedIsNamed) {
  TestServer server;
  server.Load();
  Client client(server);
  const auto refused = [&](Json fields) {
    fields["prompt"] = "a";
    const Answer answer = client.Post(kCompletions, fields);
    EXPECT_EQ(answer.status, 400u) << answer.body;
    EXPECT_TRUE(answer.json()["error"]["code"].is_string()) << answer.body;
    return answer.json()["error"]["param"].get<std::string>();
  };
  EXPECT_EQ(refused({{"grammar", "root ::= ("}}), "grammar");
  EXPECT_EQ(refused({{"json_schema", {{"type", "strong"}}}}), "json_schema");
  EXPECT_EQ(refused({{"response_format",
                      {{"type", "json_schema"},
                       {"json_schema", {{"schema", {{"$ref", "http://a/b"}}}}}}}}),
            "response_format.json_schema.schema");
}

TEST(GenerationTest, ADrawnSeedIsGivenBackAndGivesTheSameText) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {{"prompt", "abc"}, {"max_tokens", 30}};
  const Json drawn = client.Post(kCompletions, request).json();
  EXPECT_NE(client.Post(kCompletions, request).json()["seed"], drawn["seed"]);
  request["seed"] = drawn["seed"];
  EXPECT_EQ(client.Post(kCompletions, request).json()["choices"], drawn["choices"]);
}

TEST(GenerationTest, AStreamSaysWhatTheWholeAnswerSays) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json request = {{"messages", {{{"role", "user"}, {"content", "hi"}}}},
                        {"n", 2},
                        {"seed", 3},
                        {"logprobs", true},
                        {"top_logprobs", 2},
                        {"max_tokens", 25}};
  const Json whole = client.Post(kChat, request).json();
  Json with_usage = Streamed(request);
  with_usage["stream_options"]["include_usage"] = true;
  const Answer answer = client.Post(kChat, with_usage);
  EXPECT_EQ(answer.headers["Content-Type"], "text/event-stream");
  std::vector<std::string> events = EventsOf(answer.body);
  ASSERT_GE(events.size(), 6u);
  EXPECT_EQ(events.back(), "[DONE]");
  events.pop_back();
  const Json last = Json::parse(events.back());
  events.pop_back();
  EXPECT_EQ(last["choices"], Json::array());
  EXPECT_EQ(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
  EXPECT_EQ(last["usage"]["completion_tokens"], 50);

  std::vector<std::string> text(2), reason(2);
  std::vector<Json> logprobs(2, Json::array());
  std::vector<int> roles(2);
  for (const std::string& event : events) {
    const Json chunk = Json::parse(event);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_TRUE(chunk.contains("usage") && chunk["usage"].is_null());
    EXPECT_EQ(chunk["id"], last["id"]);
    ASSERT_EQ(chunk["choices"].size(), 1u);
    const Json& choice = chunk["choices"][0];
    const size_t i = choice["index"];
    EXPECT_EQ(reason[i], "") << "after its end";
    if (choice["delta"].contains("role")) roles[i]++;
    if (choice["delta"].contains("content")) {
      text[i] += choice["delta"]["content"].get<std::string>();
    }
    if (!choice["logprobs"].is_null()) {
      for (const Json& entry : choice["logprobs"]["content"]) logprobs[i].push_back(entry);
    }
    if (!choice["finish_reason"].is_null()) reason[i] = choice["finish_reason"];
  }
  for (size_t i = 0; i < 2; i++) {
    const Json& choice = whole["choices"][i];
    EXPECT_EQ(roles[i], 1);
    EXPECT_EQ(text[i], choice["message"]["content"]);
    EXPECT_EQ(reason[i], choice["finish_reason"]);
    EXPECT_EQ(logprobs[i], choice["logprobs"]["content"]);
    EXPECT_EQ(logprobs[i].size(), 25u);
  }
}

TEST(GenerationTest, EchoStartsWithThePromptInBothForms) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json request = {{"prompt", {"abc", "xyz"}}, {"echo", true}, {"seed", 1}, {"max_tokens", 4}};
  const Json whole = client.Post(kCompletions, request).json();
  std::vector<std::string> text(2);
  for (const std::string& event : EventsOf(client.Post(kCompletions, Streamed(request)).body)) {
    if (event == "[DONE]") continue;
    const Json choice = Json::parse(event)["choices"][0];
    text[choice["index"].get<size_t>()] += choice["text"].get<std::string>();
  }
  for (size_t i = 0; i < 2; i++) {
    EXPECT_TRUE(text[i].starts_with(i == 0 ? "abc" : "xyz")) << text[i];
    EXPECT_EQ(text[i], whole["choices"][i]["text"]);
  }
}

// Also while text is held back, as it may become a stop string.
TEST(GenerationTest, TextOffsetsAreThoseOfTheTokens) {
  TestServer server;
  server.Load();
  Client client(server);
  Json only_letters = Json::array();  // one byte each
  for (size_t id = 0; id < kTestVocab - 26; id++) only_letters.push_back({id, -100});
  Json request = {{"prompt", "abc"},
                  {"max_tokens", 30},
                  {"seed", 1},
                  {"logprobs", 0},
                  {"logit_bias", only_letters}};
  const Json choice = client.Post(kCompletions, request).json()["choices"][0];
  const Json& logprobs = choice["logprobs"];
  for (size_t i = 0; i < 30; i++) EXPECT_EQ(logprobs["text_offset"][i], i);
  request["stop"] = choice["text"].get<std::string>().substr(2, 20) + "!";
  EXPECT_EQ(client.Post(kCompletions, request).json()["choices"][0]["logprobs"], logprobs);
}

TEST(GenerationTest, CachedTokensAreExactAndResetForgets) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json request = {{"prompt", MakeTokens(100, 1)}, {"max_tokens", 1}};
  const auto cached = [&] {
    const Json answer = client.Post(kCompletions, request).json();
    EXPECT_EQ(answer["timings"]["prompt_n"].get<int>() + answer["timings"]["cache_n"].get<int>(),
              100);
    EXPECT_EQ(answer["timings"]["cache_n"],
              answer["usage"]["prompt_tokens_details"]["cached_tokens"]);
    return answer["timings"]["cache_n"].get<int>();
  };
  EXPECT_EQ(cached(), 0);
  EXPECT_EQ(cached(), 99);
  EXPECT_EQ(client.Post("/v1/cache/reset", {}).status, 200u);
  const Json pages = client.Get("/v1/cache").json()["pages"];
  EXPECT_EQ(pages["free"], pages["capacity"]);
  EXPECT_EQ(cached(), 0);
}

TEST(GenerationTest, ErrorsNameTheField) {
  TestServer server;
  server.Load();
  Client client(server);
  const auto error = [&](const Json& more) {
    Json request = {{"prompt", "abc"}};
    request.update(more);
    const Answer answer = client.Post(kCompletions, request);
    EXPECT_EQ(answer.status, 400u) << request;
    return answer.json()["error"];
  };
  EXPECT_EQ(error({{"temperature", "hot"}})["param"], "temperature");
  EXPECT_EQ(error({{"logit_bias", {{"99999", 1}}}})["param"], "logit_bias");
  EXPECT_EQ(error({{"prompt", {5, kTestVocab}}})["param"], "prompt");
  EXPECT_EQ(error({{"prompt", Tokens()}})["param"], "prompt");
  const Json too_long = error({{"prompt", MakeTokens(5000, 1)}});
  EXPECT_EQ(too_long["code"], "context_length_exceeded");
  EXPECT_EQ(too_long["param"], "prompt");
}

TEST(GenerationTest, MoreAnswersThanTheQueueHoldsAreNoReasonToTryAgain) {
  TestServer server([&](TestOptions& o) { o.max_queue = 4; });
  server.Load();
  Client client(server);
  const Json request = {{"prompt", "a"}, {"max_tokens", 1}};
  Json many = request;
  many["n"] = 5;
  const Answer answer = client.Post(kCompletions, many);
  EXPECT_EQ(answer.status, 400u);
  EXPECT_EQ(answer.json()["error"]["param"], "n");
  many["n"] = 4;
  EXPECT_EQ(client.Post(kCompletions, many).status, 200u);
}

TEST(GenerationTest, AFullQueueIs503AndLeavesNothingBehind) {
  TestServer server([&](TestOptions& o) {
    o.max_queue = 4;
    o.max_running = 1;
  });
  server.Load();
  server.gate().Close();
  Client running(server), other(server);
  running.SendRequest("POST", kCompletions, R"({"prompt":"a","max_tokens":3,"n":3})");
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 3; });
  // Of its four answers two find a place at most; all of them go.
  const Answer full = other.Post(kCompletions, {{"prompt", "b"}, {"n", 4}});
  EXPECT_EQ(full.status, 503u);
  EXPECT_EQ(full.headers["Retry-After"], "1");
  EXPECT_EQ(full.json()["error"]["code"], "queue_full");
  server.gate().Open();
  EXPECT_EQ(running.Read().status, 200u);
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 0; });
  EXPECT_EQ(server.engine().Stats().finished_total, 3u);
  EXPECT_EQ(other.Post(kCompletions, {{"prompt", "b"}}).status, 200u);
}

// The tokens of one step come together: none of them waits for those behind it.
TEST(GenerationTest, EachChoiceOfAStreamIsWrittenAsItGrows) {
  size_t steps = 0;
  TestServer server;  // which counts until its end
  server.on_step = [&] {
    if (++steps == 8) server.gate().Close();
  };
  server.Load();
  server.gate().Close();
  Client client(server);
  client.SendRequest("POST", kCompletions,
                     R"({"prompt":"a","max_tokens":40,"n":3,"stream":true,"temperature":0})");
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 3; });
  server.gate().Open();
  std::string stream;
  size_t num_seen = 0;
  constexpr int kEnough = 20'000;  // without it: for ever
  for (int i = 0; i < kEnough && num_seen < 3; i++) {
    if (client.HasSomething()) stream += client.ReadSome(1 << 16);
    num_seen = 0;
    for (const char* begin : {R"("index":0)", R"("index":1)", R"("index":2)"}) {
      const std::regex piece(std::string(begin) + R"(,"text":"[^"])");
      num_seen += std::regex_search(stream, piece) ? 1 : 0;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(num_seen, 3u) << stream;
  server.gate().Open();
}

// --- Clients that leave ---

class LeavingTest : public testing::TestWithParam<bool> {};  // whether it streams

// Its tokens come all the time: that it is gone is noticed all the same.
TEST_P(LeavingTest, WhileTokensCome) {
  TestServer server;
  server.on_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  server.Load();
  for (const bool with_more_to_read : {false, true}) {
    const uint64_t before = server.engine().Stats().cancelled_total;
    Client client(server);
    client.SendRequest(
        "POST", kCompletions,
        Json({{"prompt", "a"}, {"max_tokens", 4000}, {"stream", GetParam()}}).dump());
    // The next request of the connection hides its end from who only looks for bytes.
    if (with_more_to_read) client.SendRequest("GET", "/health");
    server.Await([](const EngineStats& s) { return s.running == 1; });
    client.Close();
    server.Await([&](const EngineStats& s) { return s.running == 0; });
    EXPECT_EQ(server.engine().Stats().cancelled_total, before + 1);
  }
  const PageCacheStats cache = server.engine().CacheStats();
  EXPECT_EQ(cache.pinned, 0u);
  EXPECT_EQ(cache.free + cache.private_pages + cache.committed, cache.capacity);
}

TEST_P(LeavingTest, WhileQueued) {
  TestServer server([&](TestOptions& o) { o.max_running = 1; });
  server.on_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  server.Load();
  server.gate().Close();
  Client first(server);
  first.SendRequest("POST", kCompletions, R"({"prompt":"a","max_tokens":50,"seed":1})");
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 1; });
  {
    Client second(server);
    second.SendRequest(
        "POST", kCompletions,
        Json({{"prompt", "b"}, {"max_tokens", 4000}, {"stream", GetParam()}}).dump());
    server.Await([](const EngineStats& s) { return s.running + s.waiting == 2; });
  }
  server.gate().Open();
  EXPECT_EQ(first.Read().status, 200u);
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 0; });
  EXPECT_EQ(server.engine().Stats().finished_total, 1u);
  EXPECT_EQ(server.engine().Stats().cancelled_total, 1u);
}

INSTANTIATE_TEST_SUITE_P(, LeavingTest, testing::Bool());

TEST(GenerationTest, AClientThatNeverReadsIsCutOff) {
  TestServer server([&](TestOptions& o) { o.server.write_timeout = std::chrono::seconds(1); });
  // All of it takes far longer than the client is given.
  server.on_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(3)); };
  server.Load();
  Client client(server, 1024);
  // Far more than the kernel keeps for it.
  client.SendRequest("POST", kCompletions,
                     R"({"prompt":"a","n":8,"max_tokens":4000,"logprobs":20,"stream":true})");
  server.Await([](const EngineStats& s) { return s.running > 0; });
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 0; });
  EXPECT_GT(server.engine().Stats().cancelled_total, 0u);
}

TEST(GenerationTest, AClientThatReadsSlowlyGetsItAll) {
  TestServer server;
  server.Load();
  Client client(server, 1024);
  const Json request = {
      {"prompt", "a"}, {"max_tokens", 400}, {"logprobs", 5}, {"stream", true}, {"seed", 1}};
  client.Send("POST /v1/completions HTTP/1.0\r\nContent-Length: " +
              std::to_string(request.dump().size()) + "\r\n\r\n" + request.dump());
  std::string bytes;
  for (std::string some; !(some = client.ReadSome(700)).empty();) bytes += some;
  // HTTP/1.0: no chunks, and the answer ends with the connection.
  const size_t body = bytes.find("\r\n\r\n");
  ASSERT_NE(body, std::string::npos);
  EXPECT_EQ(bytes.find("chunked"), std::string::npos);
  std::string text;
  const std::vector<std::string> events = EventsOf(bytes.substr(body + 4));
  ASSERT_EQ(events.back(), "[DONE]");
  for (size_t i = 0; i + 1 < events.size(); i++) {
    text += Json::parse(events[i])["choices"][0]["text"].get<std::string>();
  }
  const Tokens prompt =
      server.tokenizer().Encode("a", AddSpecial::kByVocabulary, SpecialTokens::kParse);
  EXPECT_EQ(text, server.ReferenceText(prompt, {.seed = 1}, 400));
}

// --- Many, and the end ---

TEST(GenerationTest, AThousandStreamsWaitAtOnce) {
  TestServer server;
  server.Load();
  server.gate().Close();
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < 1000; i++) {
    clients.push_back(std::make_unique<Client>(server));
    clients.back()->SendRequest("POST", kCompletions,
                                Json({{"prompt", Tokens{40, static_cast<TokenId>(i % 200)}},
                                      {"max_tokens", 2},
                                      {"seed", i},
                                      {"stream", true}})
                                    .dump());
  }
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 1000; });
  EXPECT_EQ(Client(server).Get("/health").status, 200u);
  server.gate().Open();
  for (size_t i = 0; i < 1000; i++) {
    std::string text;
    for (const std::string& event : EventsOf(clients[i]->Read().body)) {
      if (event == "[DONE]") continue;
      text += Json::parse(event)["choices"][0]["text"].get<std::string>();
    }
    const Tokens prompt = {40, static_cast<TokenId>(i % 200)};
    EXPECT_EQ(text, server.ReferenceText(prompt, {.seed = i}, 2)) << i;
  }
}

TEST(GenerationTest, StoppingLetsAnswersFinishAndTakesNoMore) {
  TestServer server;
  server.Load();
  Client running(server), idle(server);
  EXPECT_EQ(idle.Get("/health").status, 200u);
  server.gate().Close();
  running.SendRequest("POST", kCompletions, R"({"prompt":"a","max_tokens":100})");
  server.Await([](const EngineStats& s) { return s.running + s.waiting == 1; });
  server.server().Stop();
  // An open connection is still answered, with no.
  EXPECT_EQ(idle.Post(kCompletions, {{"prompt", "b"}}).status, 503u);
  server.gate().Open();
  const Answer answer = running.Read();
  EXPECT_EQ(answer.status, 200u);
  EXPECT_EQ(answer.json()["usage"]["completion_tokens"], 100);
  EXPECT_EQ(answer.headers["Connection"], "close");
}

TEST(GenerationTest, StoppingCutsOffWhatTakesTooLong) {
  TestServer server(
      [&](TestOptions& o) { o.server.drain_timeout = std::chrono::milliseconds(10); });
  server.on_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  server.Load();
  Client whole(server), stream(server);
  whole.SendRequest("POST", kCompletions, R"({"prompt":"a","max_tokens":4000})");
  stream.SendRequest("POST", kCompletions, R"({"prompt":"b","max_tokens":4000,"stream":true})");
  server.Await([](const EngineStats& s) { return s.running == 2; });
  server.Stop();
  const Answer answer = whole.Read();
  EXPECT_EQ(answer.status, 503u);
  EXPECT_EQ(answer.json()["error"]["type"], "unavailable_error");
  const std::vector<std::string> events = EventsOf(stream.Read().body);
  ASSERT_GE(events.size(), 2u);
  EXPECT_TRUE(Json::parse(events[events.size() - 2]).contains("error"));
  EXPECT_EQ(events.back(), "[DONE]");
}

// --- Nothing is asked for, or nothing can be ---

TEST(EmptyAnswerTest, NoTokensComputeThePromptInEveryDialect) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json message = {{{"role", "user"}, {"content", "warm this up"}}};
  const Json text =
      client.Post("/v1/completions", {{"prompt", std::string(60, 't')}, {"max_tokens", 0}}).json();
  EXPECT_EQ(text["choices"][0]["text"], "");
  EXPECT_EQ(text["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(text["usage"]["completion_tokens"], 0);
  EXPECT_EQ(text["usage"]["prompt_tokens"], 62);
  EXPECT_EQ(text["timings"]["predicted_n"], 0);
  const Json echo = client
                        .Post("/v1/completions", {{"prompt", std::string(60, 't')},
                                                  {"max_tokens", 0},
                                                  {"echo", true},
                                                  {"stream", false}})
                        .json();
  EXPECT_EQ(echo["choices"][0]["text"], std::string(60, 't'));
  EXPECT_EQ(echo["usage"]["prompt_tokens_details"]["cached_tokens"], 61);

  const Json chat =
      client.Post("/v1/chat/completions", {{"messages", message}, {"max_tokens", 0}}).json();
  EXPECT_EQ(chat["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(chat["usage"]["completion_tokens"], 0);
  const Json anthropic =
      client.Post("/v1/messages", {{"model", "fake"}, {"messages", message}, {"max_tokens", 0}})
          .json();
  EXPECT_EQ(anthropic["stop_reason"], "max_tokens");
  EXPECT_EQ(anthropic["usage"]["output_tokens"], 0);
  EXPECT_GT(anthropic["usage"]["cache_read_input_tokens"], 0);
  const Json llama = client.Post("/completion", {{"prompt", "abc"}, {"n_predict", 0}}).json();
  EXPECT_EQ(llama["content"], "");
  EXPECT_EQ(llama["tokens_predicted"], 0);
  client.SendRequest("POST", "/v1/completions", R"({"prompt":"abc","max_tokens":0,"stream":true})");
  const auto events = EventsOf(client.Read().body);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(Json::parse(events[0])["choices"][0]["finish_reason"], "length");
}

TEST(BrokenModelTest, ItsRequestIsA500AndOthersAreAnswered) {
  TestServer server;
  server.Load();
  server.model().breaks_at =
      server.tokenizer().Encode("z", AddSpecial::kNo, SpecialTokens::kAsText).back();
  Client client(server);
  for (int i = 0; i < 3; i++) {
    const Answer broken = client.Post("/v1/completions", {{"prompt", "xyz"}, {"max_tokens", 5}});
    EXPECT_EQ(broken.status, 500u);
    EXPECT_EQ(broken.json()["error"]["type"], "server_error");
    EXPECT_NE(broken.body.find("NaN"), std::string::npos);
    const Json whole = {{"prompt", "abc"}, {"max_tokens", 5}, {"temperature", 0}};
    EXPECT_EQ(client.Post("/v1/completions", whole).status, 200u);
  }
  client.SendRequest("POST", "/v1/completions", R"({"prompt":"xyz","stream":true})");
  EXPECT_NE(client.Read().body.find(R"("internal_error")"), std::string::npos);
}

}  // namespace
}  // namespace trellis
