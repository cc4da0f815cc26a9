// The APIs beside OpenAI's completions, over a model whose answers are known from the tokens alone.
#include <gtest/gtest.h>

#include <sstream>
#include <thread>
#include <vector>

#include "server/test_support.h"

namespace trellis {
namespace {

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kResponses = "/v1/responses";

Json Message(const char* role, const std::string& content) {
  return {{"role", role}, {"content", content}};
}

TEST(DialectsTest, ALastMessageOfTheAssistantIsContinued) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json messages = {Message("user", "hello"), Message("assistant", "you")};
  Json body = {{"messages", messages}, {"temperature", 0}, {"max_tokens", 6}};
  const std::string prompt =
      client.Post("/apply-template", {{"messages", messages}}).json()["prompt"];
  EXPECT_TRUE(prompt.ends_with("<|im_start|>assistant\nyou")) << prompt;
  const Json chat = client.Post(kChat, body).json();
  const std::string text = chat["choices"][0]["message"]["content"];
  EXPECT_EQ(client.Post("/v1/messages", body).json()["content"][0]["text"], text);
  const Json llama =
      client
          .Post("/api/chat",
                {{"messages", messages},
                 {"stream", false},
                 {"options", {{"temperature", 0}, {"repeat_penalty", 1}, {"num_predict", 6}}}})
          .json();
  EXPECT_EQ(llama["message"]["content"], text);
  const Json plain =
      client.Post("/completion", {{"prompt", prompt}, {"temperature", 0}, {"n_predict", 6}}).json();
  EXPECT_EQ(plain["content"], text);

  body["continue_final_message"] = false;
  EXPECT_GT(client.Post(kChat, body).json()["usage"]["prompt_tokens"],
            chat["usage"]["prompt_tokens"]);
  body["continue_final_message"] = true;
  EXPECT_EQ(client.Post(kChat, body).json()["choices"][0]["message"]["content"], text);
  body["response_format"] = {{"type", "json_object"}};
  const Answer held = client.Post(kChat, body);
  EXPECT_EQ(held.status, 400u);
  EXPECT_EQ(held.json()["error"]["param"], "messages");
  const Answer alone =
      client.Post("/v1/messages",
                  {{"messages", Json::array({Message("assistant", "you")})}, {"max_tokens", 6}});
  EXPECT_EQ(alone.status, 400u);
}

TEST(DialectsTest, ASchemaThatNoGrammarIsMadeOfIsWhatIsWrong) {
  TestServer server;
  server.Load();
  Json body = {{"messages", Json::array({Message("user", "a")})}};
  body["response_format"] = {
      {"type", "json_schema"},
      {"json_schema",
       {{"name", "tree"},
        {"schema", {{"type", "object"}, {"properties", {{"child", {{"$ref", "http://a/b"}}}}}}}}}};
  const Answer answer = Client(server).Post(kChat, body);
  EXPECT_EQ(answer.status, 400u);
  EXPECT_EQ(answer.json()["error"]["param"], "response_format.json_schema.schema") << answer.body;
}

// Under ThreadSanitizer too, which then sees the whole of llama.cpp's rendering.
TEST(DialectsTest, ChatsRenderedAtOnceAreEachAsAlone) {
  TestServer server;
  server.Load();
  const Json body = {{"messages", {Message("system", "Be brief."), Message("user", "why?")}}};
  const Json expected = Client(server).Post("/apply-template", body).json();
  ASSERT_NE(expected["prompt"], Json());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&] {
      Client client(server);
      for (int i = 0; i < 16; i++) {
        EXPECT_EQ(client.Post("/apply-template", body).json(), expected);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Each with the same chat, the same sampling, and six tokens.
TEST(DialectsTest, AChatIsTheSamePromptInEveryApi) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json messages = {Message("user", "hello"), Message("assistant", "you"),
                         Message("user", "why?")};
  const auto with_system = [&] {
    Json all = messages;
    all.insert(all.begin(), Message("system", "Be brief."));
    return all;
  };
  const Json chat =
      client.Post(kChat, {{"messages", with_system()}, {"temperature", 0}, {"max_tokens", 6}})
          .json();
  const std::string text = chat["choices"][0]["message"]["content"];
  const size_t num_tokens = chat["usage"]["prompt_tokens"];

  const Json claude = client
                          .Post("/v1/messages", {{"model", "fake"},
                                                 {"system", "Be brief."},
                                                 {"messages", messages},
                                                 {"temperature", 0},
                                                 {"max_tokens", 6}})
                          .json();
  EXPECT_EQ(claude["content"][0]["text"], text);
  EXPECT_EQ(claude["usage"]["cache_read_input_tokens"], num_tokens - 1);
  EXPECT_EQ(claude["usage"]["input_tokens"], 1);
  EXPECT_EQ(client
                .Post("/v1/messages/count_tokens",
                      {{"model", "fake"}, {"system", "Be brief."}, {"messages", messages}})
                .json()["input_tokens"],
            num_tokens);

  const Json llama =
      client
          .Post("/api/chat",
                {{"model", "fake:latest"},
                 {"messages", with_system()},
                 {"stream", false},
                 {"options", {{"temperature", 0}, {"repeat_penalty", 1}, {"num_predict", 6}}}})
          .json();
  EXPECT_EQ(llama["message"]["content"], text);
  EXPECT_EQ(llama["timings"]["cache_n"], num_tokens - 1);

  const Json response = client
                            .Post(kResponses, {{"instructions", "Be brief."},
                                               {"input", messages},
                                               {"temperature", 0},
                                               {"max_output_tokens", 6}})
                            .json();
  EXPECT_EQ(response["output"][0]["content"][0]["text"], text);
  EXPECT_EQ(response["usage"]["input_tokens_details"]["cached_tokens"], num_tokens - 1);

  const std::string prompt =
      client.Post("/apply-template", {{"messages", with_system()}}).json()["prompt"];
  const Json plain =
      client.Post("/completion", {{"prompt", prompt}, {"temperature", 0}, {"n_predict", 6}}).json();
  EXPECT_EQ(plain["content"], text);
  EXPECT_EQ(plain["tokens_cached"], num_tokens - 1);
}

TEST(DialectsTest, AResponseGoesOnFromAnother) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {{"input", "hello"},
                  {"instructions", "Be brief."},
                  {"temperature", 0},
                  {"max_output_tokens", 6}};
  const Json first = client.Post(kResponses, request).json();
  const std::string said = first["output"][0]["content"][0]["text"];
  EXPECT_EQ(first["status"], "incomplete");
  EXPECT_EQ(first["instructions"], "Be brief.");

  // Streamed or not, what it says is kept.
  request["input"] = "why?";
  request["previous_response_id"] = first["id"];
  request["stream"] = true;
  const std::string stream = client.Post(kResponses, request).body;
  const size_t last = stream.rfind("data: ");
  const Json second = Json::parse(stream.substr(last + 6))["response"];
  request["stream"] = false;
  request["input"] = "really?";
  request["previous_response_id"] = second["id"];
  const Json third = client.Post(kResponses, request).json();

  const std::string said_then = second["output"][0]["content"][0]["text"];
  request.erase("previous_response_id");
  request["input"] = {Message("user", "hello"), Message("assistant", said), Message("user", "why?"),
                      Message("assistant", said_then), Message("user", "really?")};
  const Json whole = client.Post(kResponses, request).json();
  EXPECT_EQ(whole["usage"]["input_tokens"], third["usage"]["input_tokens"]);
  EXPECT_EQ(whole["usage"]["input_tokens_details"]["cached_tokens"],
            third["usage"]["input_tokens"].get<size_t>() - 1);
  EXPECT_EQ(whole["output"][0]["content"], third["output"][0]["content"]);

  request["store"] = false;
  const Json unkept = client.Post(kResponses, request).json();
  for (const Json& id : {unkept["id"], Json("resp_other")}) {
    const Answer answer = client.Post(kResponses, {{"input", "a"}, {"previous_response_id", id}});
    EXPECT_EQ(answer.status, 400u);
    EXPECT_EQ(answer.json()["error"]["code"], "previous_response_not_found");
  }
}

TEST(DialectsTest, OllamasClientsLoadTheModelByAskingForNothing) {
  TestServer server;
  server.Load();
  Client client(server);
  for (const char* path : {"/api/chat", "/api/generate"}) {
    const Json answer = client.Post(path, {{"model", "fake"}, {"keep_alive", "5m"}}).json();
    EXPECT_EQ(answer["done"], true);
    EXPECT_EQ(answer["done_reason"], "load");
  }
}

TEST(DialectsTest, OllamasClientsMayAskForLogprobs) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json prompt = Json::array({Message("user", "hello")});
  const Json expected = client
                            .Post(kChat, {{"messages", prompt},
                                          {"temperature", 0},
                                          {"max_tokens", 6},
                                          {"logprobs", true},
                                          {"top_logprobs", 2}})
                            .json()["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(expected.size(), 6u);
  Json request = {{"messages", prompt},
                  {"prompt", "hello"},
                  {"stream", false},
                  {"logprobs", true},
                  {"top_logprobs", 2},
                  {"options", {{"temperature", 0}, {"repeat_penalty", 1}, {"num_predict", 6}}}};
  for (const char* path : {"/api/chat", "/api/generate"}) {
    request["stream"] = false;
    EXPECT_EQ(client.Post(path, request).json()["logprobs"], expected) << path;
    request["stream"] = true;
    std::istringstream lines(client.Post(path, request).body);
    Json streamed = Json::array();
    for (std::string line; std::getline(lines, line);) {
      for (const Json& entry : Json::parse(line).value("logprobs", Json::array()))
        streamed.push_back(entry);
    }
    EXPECT_EQ(streamed, expected) << path;
  }
  request.erase("logprobs");
  EXPECT_EQ(client.Post("/api/chat", request).status, 400u) << "top_logprobs alone";
  request.erase("top_logprobs");
  request["stream"] = false;
  EXPECT_FALSE(client.Post("/api/chat", request).json().contains("logprobs"));
}

TEST(DialectsTest, OllamasOptionsThatAreNotHereAreRefused) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {{"messages", {Message("user", "a")}}, {"stream", false}};
  request["options"] = {
      {"mirostat", 0}, {"mirostat_tau", 5}, {"tfs_z", 1.0}, {"num_ctx", 9}, {"num_predict", 1}};
  EXPECT_EQ(client.Post("/api/chat", request).status, 200u);
  for (const char* name : {"mirostat", "tfs_z"}) {
    request["options"][name] = 2;
    for (const char* path : {"/api/chat", "/api/generate"}) {
      const Answer answer = client.Post(path, request);
      EXPECT_EQ(answer.status, 400u) << path;
      EXPECT_NE(answer.body.find(std::string("options.") + name), std::string::npos) << answer.body;
    }
    request["options"].erase(name);
  }
}

TEST(DialectsTest, EmbeddingsAreTheModels) {
  TestServer server;
  server.Load();
  Client client(server);
  const Tokens tokens = {40, 41, 42};
  std::vector<float> expected = server.model().ReferenceHidden(tokens).back();
  double squares = 0;
  for (const float x : expected) squares += static_cast<double>(x) * x;
  const Json answer =
      client.Post("/v1/embeddings", {{"model", "fake"}, {"input", {tokens, "hello"}}}).json();
  ASSERT_EQ(answer["data"].size(), 2u);
  for (size_t d = 0; d < expected.size(); d++)
    EXPECT_FLOAT_EQ(answer["data"][0]["embedding"][d],
                    expected[d] / static_cast<float>(std::sqrt(squares)));
  EXPECT_EQ(answer["data"][1]["index"], 1);
  EXPECT_EQ(answer["usage"]["prompt_tokens"],
            3 + server.tokenizer()
                    .Encode("hello", AddSpecial::kByVocabulary, SpecialTokens::kParse)
                    .size());
  const Json ollama =
      client.Post("/api/embed", {{"model", "fake:latest"}, {"input", tokens}}).json();
  EXPECT_EQ(ollama["embeddings"][0], answer["data"][0]["embedding"]);
  const std::string base64 =
      client.Post("/v1/embeddings", {{"input", tokens}, {"encoding_format", "base64"}})
          .json()["data"][0]["embedding"];
  EXPECT_EQ(base64.size(), 24u) << "16 bytes";
  const Json older =
      client.Post("/api/embeddings", {{"model", "fake:latest"}, {"prompt", "hello"}}).json();
  EXPECT_EQ(older, Json({{"embedding", answer["data"][1]["embedding"]}}));
  EXPECT_EQ(client.Post("/api/embeddings", {{"prompt", {"a", "b"}}}).status, 400u);
  for (const char* path : {"/embedding", "/embeddings"}) {
    const Json llama = client.Post(path, {{"content", {tokens, "hello"}}}).json();
    ASSERT_EQ(llama.size(), 2u);
    for (size_t i = 0; i < 2; i++) {
      EXPECT_EQ(llama[i],
                Json({{"index", i}, {"embedding", Json::array({answer["data"][i]["embedding"]})}}));
    }
    EXPECT_EQ(client.Post(path, {{"input", "hello"}, {"embd_normalize", 2}}).json()[0]["embedding"],
              llama[1]["embedding"]);
    EXPECT_EQ(client.Post(path, {{"input", "a"}, {"embd_normalize", -1}}).status, 400u);
    EXPECT_EQ(client.Post(path, Json::object()).json()["error"]["param"], "content");
  }
  EXPECT_EQ(client.Post("/v1/embeddings", {{"input", Json::array()}}).status, 400u);
  EXPECT_EQ(client.Post("/v1/embeddings", {{"input", "a"}, {"dimensions", 2}}).status, 400u);
}

TEST(DialectsTest, PathsWithoutAVersionAreTheSame) {
  TestServer server;
  server.Load();
  Client client(server);
  EXPECT_EQ(client.Get("/v1/health").json(), client.Get("/health").json());
  EXPECT_EQ(client.Get("/models").json(), client.Get("/v1/models").json());
  Json request = {{"messages", {Message("user", "a")}}, {"temperature", 0}, {"max_tokens", 4}};
  const Json chat = client.Post("/chat/completions", request).json();
  EXPECT_EQ(chat["choices"], client.Post(kChat, request).json()["choices"]);
  EXPECT_EQ(chat["object"], "chat.completion");
  request["stream"] = true;
  const std::string stream = client.Post("/chat/completions", request).body;
  EXPECT_EQ(EventsOf(stream).back(), "[DONE]");
  const Json response =
      client.Post("/responses", {{"input", "a"}, {"max_output_tokens", 4}}).json();
  EXPECT_EQ(response["object"], "response");
}

TEST(DialectsTest, ErrorsHaveTheFormOfTheApi) {
  TestServer server;
  server.Load();
  Client client(server);
  const Answer openai = client.Post(kChat, {{"messages", Json::array()}});
  EXPECT_EQ(openai.status, 400u);
  EXPECT_EQ(openai.json()["error"]["param"], "messages");
  const Answer anthropic = client.Post("/v1/messages", {{"messages", Json::array()}});
  EXPECT_EQ(anthropic.status, 400u);
  EXPECT_EQ(anthropic.json()["type"], "error");
  EXPECT_EQ(anthropic.json()["error"]["type"], "invalid_request_error");
  const Answer ollama =
      client.Post("/api/chat", {{"model", "other"}, {"messages", {Message("user", "a")}}});
  EXPECT_EQ(ollama.status, 404u);
  EXPECT_TRUE(ollama.json()["error"].is_string());
  EXPECT_EQ(client.Post("/infill", {{"input_prefix", "a"}, {"input_suffix", "b"}}).status, 400u)
      << "the vocabulary has no tokens for it";
}

// llama-server's: an event that ends each of them, with its own counts.
TEST(DialectsTest, SeveralPromptsAreStreamedByTheirIndex) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {{"prompt", {"a", "be", "see"}}, {"temperature", 0}, {"n_predict", 5}};
  const Json whole = client.Post("/completion", request).json();
  request["stream"] = true;
  std::vector<std::string> texts(3);
  size_t num_ended = 0;
  for (const std::string& event : EventsOf(client.Post("/completion", request).body)) {
    const Json part = Json::parse(event);
    const size_t index = part["index"];
    ASSERT_LT(index, texts.size());
    texts[index] += part["content"];
    if (!part["stop"].get<bool>()) continue;
    num_ended++;
    EXPECT_EQ(part["tokens_predicted"], 5);
    EXPECT_EQ(part["tokens_evaluated"], whole[index]["tokens_evaluated"]);
    EXPECT_EQ(part["tokens_evaluated"],
              part["timings"]["prompt_n"].get<int>() + part["timings"]["cache_n"].get<int>());
  }
  EXPECT_EQ(num_ended, 3u);
  for (size_t i = 0; i < texts.size(); i++) EXPECT_EQ(texts[i], whole[i]["content"]);
  EXPECT_NE(whole[0]["tokens_evaluated"], whole[2]["tokens_evaluated"]);
}

TEST(DialectsTest, LlamaServersClientsPickFieldsOfTheAnswer) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {{"prompt", {"a", "be"}}, {"temperature", 0}, {"n_predict", 5}};
  const Json whole = client.Post("/completion", request).json();
  request["response_fields"] = {"content", "timings/predicted_n", "timings/nothing", "stop/a", ""};
  const Json picked = client.Post("/completion", request).json();
  ASSERT_EQ(picked.size(), 2u);
  for (size_t i = 0; i < picked.size(); i++) {
    EXPECT_EQ(picked[i], Json({{"content", whole[i]["content"]}, {"timings/predicted_n", 5}}));
  }
  request["stream"] = true;
  request["prompt"] = "a";
  const std::vector<std::string> events = EventsOf(client.Post("/completion", request).body);
  ASSERT_GT(events.size(), 1u);
  EXPECT_EQ(Json::parse(events.front())["stop"], false) << "they are of what ends it";
  EXPECT_EQ(Json::parse(events.back()), Json({{"content", ""}, {"timings/predicted_n", 5}}));
  request["response_fields"] = {""};
  request["stream"] = false;
  EXPECT_EQ(client.Post("/completion", request).json(), Json::object());
}

TEST(DialectsTest, LinesEndAnAnswerWhereAnEditorAsks) {
  TestServer server;
  server.on_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  server.Load();
  Client client(server);
  Json request = {{"prompt", "a"}, {"grammar", R"(root ::= "a\n  b\n c")"}, {"n_indent", 2}};
  for (const bool stream : {false, true}) {
    request["stream"] = stream;
    const std::string body = client.Post("/completion", request).body;
    std::string text;
    Json last;
    for (const std::string& event : stream ? EventsOf(body) : std::vector<std::string>{body}) {
      last = Json::parse(event);
      text += last["content"];
    }
    EXPECT_EQ(text, "a\n  b\n ");
    EXPECT_EQ(last["stop_type"], "limit");
  }
  request["n_indent"] = 1;
  request["stream"] = false;
  EXPECT_EQ(client.Post("/completion", request).json()["content"], "a\n  b\n c");

  constexpr int kLineEnd = 3 + '\n';
  request = {{"prompt", "a"},
             {"logit_bias", {{std::to_string(kLineEnd), 100}}},
             {"n_predict", 1000},
             {"t_max_predict_ms", 1}};
  const Json late = client.Post("/completion", request).json();
  EXPECT_EQ(late["stop_type"], "limit");
  EXPECT_LT(late["tokens_predicted"], 1000);
  EXPECT_GE(late["tokens_predicted"], 2) << "time begins with the first";
  EXPECT_EQ(late["content"], std::string(late["tokens_predicted"], '\n'));
  // Other text has no end for it.
  request["logit_bias"] = {{std::to_string(kLineEnd), false}};
  request["n_predict"] = 20;
  EXPECT_EQ(client.Post("/completion", request).json()["tokens_predicted"], 20);
}

TEST(DialectsTest, ARequestMayHaveADeadline) {
  TestServer server;
  server.Load();
  Client client(server);
  const Json request = {{"prompt", "hello"}, {"max_tokens", 4}};
  const auto ask = [&](Json body, const std::string& timeout) {
    client.SendRequest("POST", "/v1/completions", body.dump(),
                       "x-request-timeout: " + timeout + "\r\n");
    return client.Read();
  };
  EXPECT_EQ(ask(request, "300.5").status, 200u);
  for (const char* wrong : {"soon", "0", "-1", "nan", "1e9", "1 s"})
    EXPECT_EQ(ask(request, wrong).status, 400u) << wrong;

  server.gate().Close();
  const Answer late = ask(request, "0.05");
  EXPECT_EQ(late.status, 504u);
  EXPECT_EQ(late.json()["error"]["code"], "timeout");
  Json streamed = request;
  streamed["stream"] = true;
  Client other(server);  // the first answers again when the step that it was in has ended
  other.SendRequest("POST", "/v1/completions", streamed.dump(), "x-request-timeout: 0.05\r\n");
  const std::vector<std::string> events = EventsOf(other.Read().body);
  server.gate().Open();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(Json::parse(events[0])["error"]["code"], "timeout");
  EXPECT_EQ(ask(request, "300").status, 200u);
}

TEST(DialectsTest, AStreamThatWaitsSaysSo) {
  TestServer server([](TestOptions& options) {
    options.server.keep_alive_interval = std::chrono::milliseconds(5);
  });
  server.Load();
  Client client(server);
  server.gate().Close();
  client.SendRequest(
      "POST", kChat,
      Json({{"messages", {Message("user", "a")}}, {"max_tokens", 3}, {"stream", true}}).dump());
  std::string begin;
  while (begin.find(": waiting\n\n") == std::string::npos) {
    const std::string more = client.ReadSome(100);
    ASSERT_FALSE(more.empty());
    begin += more;
  }
  server.gate().Open();
  std::string rest;
  while (rest.find("[DONE]") == std::string::npos) {
    const std::string more = client.ReadSome(1000);
    ASSERT_FALSE(more.empty());
    rest += more;
  }
}

TEST(DialectsTest, AStreamSaysHowFarItsPromptIs) {
  TestServer server;
  server.Load();
  Client client(server);
  Json request = {
      {"prompt", Json::array()}, {"max_tokens", 2}, {"stream", true}, {"return_progress", true}};
  for (int i = 0; i < 3000; i++) request["prompt"].push_back(40 + i % 7);
  size_t done = 0, num_chunks = 0;
  for (const std::string& event : EventsOf(client.Post("/v1/completions", request).body)) {
    if (event == "[DONE]") continue;
    const Json chunk = Json::parse(event);
    if (!chunk.contains("prompt_progress")) continue;
    EXPECT_EQ(chunk["prompt_progress"]["total"], 3000);
    EXPECT_EQ(chunk["prompt_progress"]["cache"], 0);
    EXPECT_GT(chunk["prompt_progress"]["processed"], done);
    done = chunk["prompt_progress"]["processed"];
    num_chunks++;
  }
  EXPECT_EQ(done, 3000u);
  EXPECT_GT(num_chunks, 1u);
}

}  // namespace
}  // namespace trellis
