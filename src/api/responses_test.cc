#include "api/responses.h"

#include <gtest/gtest.h>

#include "api/errors.h"
#include "api/json_text.h"

namespace trellis {
namespace {

const AnswerHead kChatHead = {.form = AnswerForm::kChat,
                              .id = "chatcmpl-1",
                              .created = 7,
                              .model = "m",
                              .fingerprint = "fp",
                              .seed = 11};

AnswerHead CompletionHead() {
  AnswerHead head = kChatHead;
  head.form = AnswerForm::kCompletion;
  return head;
}

Json Parse(const std::string& text) {
  auto parsed = ParseJson(text);
  EXPECT_TRUE(parsed.ok()) << text;
  return parsed.value();
}

const Timings kTimings = {.cached_tokens = 9,
                          .computed_tokens = 4,
                          .predicted_tokens = 8,
                          .queued_ms = 0,
                          .prompt_ms = 2,
                          .predicted_ms = 16};

TEST(AnswerTest, Chat) {
  const Json answer = Parse(
      AnswerJson(kChatHead, {{.index = 0, .text = "hé", .finish_reason = "stop"}},
                 {.prompt_tokens = 13, .cached_tokens = 9, .completion_tokens = 8}, kTimings));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["id"], "chatcmpl-1");
  EXPECT_EQ(answer["seed"], 11);
  EXPECT_EQ(answer["system_fingerprint"], "fp");
  ASSERT_EQ(answer["choices"].size(), 1u);
  EXPECT_EQ(answer["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "hé");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(answer["choices"][0]["logprobs"].is_null());
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 13);
  EXPECT_EQ(answer["usage"]["total_tokens"], 21);
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 9);
  EXPECT_EQ(answer["timings"]["cache_n"], 9);
  EXPECT_EQ(answer["timings"]["prompt_n"], 4);
  EXPECT_EQ(answer["timings"]["prompt_per_token_ms"], 0.5);
  EXPECT_EQ(answer["timings"]["prompt_per_second"], 2000);
  EXPECT_EQ(answer["timings"]["predicted_n"], 8);
  EXPECT_EQ(answer["timings"]["predicted_per_second"], 500);
}

TEST(AnswerTest, NoTimeIsNoInfinity) {
  const Json answer = Parse(AnswerJson(kChatHead, {}, {}, {}));
  EXPECT_EQ(answer["timings"]["prompt_per_second"], 0);
  EXPECT_EQ(answer["timings"]["predicted_per_token_ms"], 0);
}

ChoiceText WithLogprobs() {
  return {.index = 0,
          .text = "aé",
          .has_logprobs = true,
          .logprobs = {{.chosen = {"a", -0.5f}, .top = {{"a", -0.5f}, {"\xc3", -1.5f}}},
                       {.chosen = {"\xc3", -0.25f}, .top = {}, .text_offset = 1}},
          .finish_reason = "length"};
}

TEST(AnswerTest, TheCacheReportIsPartOfTheTimings) {
  Timings timings;
  EXPECT_FALSE(Parse(AnswerJson(kChatHead, {}, {}, timings))["timings"].contains("cache_report"));
  timings.cache_report = CacheReport{.missed = {{"diverged", 7}, {"evicted", 64}},
                                     .divergence = {{40, "12:01", "12:00\xff"}}};
  const Json report = Parse(UsageChunk(kChatHead, {}, timings))["timings"]["cache_report"];
  EXPECT_EQ(report["missed"], Json({{"diverged", 7}, {"evicted", 64}}));
  EXPECT_EQ(report["diverged"],
            Json({{"position", 40}, {"prompt", "12:01"}, {"cached", "12:00\xef\xbf\xbd"}}));
  timings.cache_report->divergence->cached.reset();
  EXPECT_EQ(Parse(AnswerJson(kChatHead, {}, {}, timings))["timings"]["cache_report"]["diverged"],
            Json({{"position", 40}, {"prompt", "12:01"}}));
  timings.cache_report = CacheReport{};
  EXPECT_EQ(Parse(AnswerJson(kChatHead, {}, {}, timings))["timings"]["cache_report"],
            Json({{"missed", Json::object()}}));
}

TEST(AnswerTest, ChatLogprobs) {
  const Json answer = Parse(AnswerJson(kChatHead, {WithLogprobs()}, {}, {}));
  const Json& content = answer["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["logprob"], -0.5);
  EXPECT_EQ(content[0]["bytes"], Json::array({97}));
  EXPECT_EQ(content[0]["top_logprobs"][1]["bytes"], Json::array({0xc3}));
  EXPECT_EQ(content[1]["token"], "\xEF\xBF\xBD");
}

TEST(AnswerTest, ALogprobOfNothingIsNoInfinity) {
  ChoiceText choice = WithLogprobs();
  choice.logprobs[0].top[1].logprob = -std::numeric_limits<float>::infinity();
  const Json chat = Parse(AnswerJson(kChatHead, {choice}, {}, {}));
  EXPECT_EQ(chat["choices"][0]["logprobs"]["content"][0]["top_logprobs"][1]["logprob"], -9999);
  const Json text = Parse(AnswerJson(CompletionHead(), {choice}, {}, {}));
  EXPECT_EQ(text["choices"][0]["logprobs"]["top_logprobs"][0]["bytes:\\xc3"], -9999);
}

TEST(AnswerTest, CompletionLogprobs) {
  const Json answer = Parse(AnswerJson(CompletionHead(), {WithLogprobs()}, {}, {}));
  EXPECT_EQ(answer["object"], "text_completion");
  EXPECT_EQ(answer["choices"][0]["text"], "aé");
  const Json& logprobs = answer["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::array({"a", "bytes:\\xc3"}));
  EXPECT_EQ(logprobs["token_logprobs"], Json::array({-0.5, -0.25}));
  EXPECT_EQ(logprobs["top_logprobs"][0]["bytes:\\xc3"], -1.5);
  EXPECT_EQ(logprobs["text_offset"], Json::array({0, 1}));
}

TEST(ChunkTest, Chat) {
  const Json role = Parse(RoleChunk(kChatHead, 3, UsageField::kNull));
  EXPECT_EQ(role["object"], "chat.completion.chunk");
  EXPECT_EQ(role["choices"][0]["index"], 3);
  EXPECT_EQ(role["choices"][0]["delta"]["role"], "assistant");
  EXPECT_TRUE(role.contains("usage") && role["usage"].is_null());

  const Json piece = Parse(TextChunk(kChatHead, {.text = "x"}, UsageField::kAbsent, nullptr));
  EXPECT_EQ(piece["choices"][0]["delta"]["content"], "x");
  EXPECT_TRUE(piece["choices"][0]["finish_reason"].is_null());
  EXPECT_FALSE(piece.contains("usage"));
  EXPECT_FALSE(piece.contains("timings"));

  const Json last =
      Parse(TextChunk(kChatHead, {.finish_reason = "stop"}, UsageField::kAbsent, &kTimings));
  EXPECT_EQ(last["choices"][0]["delta"], Json::object());
  EXPECT_EQ(last["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(last["timings"]["prompt_n"], 4);

  const Json usage = Parse(UsageChunk(kChatHead, {.prompt_tokens = 2}, kTimings));
  EXPECT_EQ(usage["choices"], Json::array());
  EXPECT_EQ(usage["usage"]["prompt_tokens"], 2);
}

TEST(ChunkTest, Completion) {
  const Json piece =
      Parse(TextChunk(CompletionHead(), {.index = 1, .text = "x"}, UsageField::kAbsent, nullptr));
  EXPECT_EQ(piece["object"], "text_completion");
  EXPECT_EQ(piece["choices"][0]["text"], "x");
  EXPECT_EQ(piece["choices"][0]["index"], 1);
}

TEST(TokenizeAnswerTest, Forms) {
  EXPECT_EQ(TokenizeJson({1, 2}), R"({"tokens":[1,2]})");
  EXPECT_EQ(TokenizeJson({}), R"({"tokens":[]})");
  EXPECT_EQ(TokenizeWithPiecesJson({{1, "a"}, {2, "\xe2\x82"}}),
            R"({"tokens":[{"id":1,"piece":"a"},{"id":2,"piece":[226,130]}]})");
  EXPECT_EQ(DetokenizeJson("a\"b"), R"({"content":"a\"b"})");
}

TEST(ErrorTest, EveryCodeHasItsStatus) {
  const std::pair<StatusCode, int> table[] = {{StatusCode::kInvalidArgument, 400},
                                              {StatusCode::kUnsupported, 400},
                                              {StatusCode::kTooLarge, 400},
                                              {StatusCode::kNotFound, 404},
                                              {StatusCode::kUnauthenticated, 401},
                                              {StatusCode::kResourceExhausted, 503},
                                              {StatusCode::kUnavailable, 503},
                                              {StatusCode::kCancelled, 499},
                                              {StatusCode::kDeadlineExceeded, 504},
                                              {StatusCode::kDataLoss, 500},
                                              {StatusCode::kIo, 500},
                                              {StatusCode::kInternal, 500}};
  for (const auto& [code, http_status] : table) {
    const ApiError error = ErrorFromStatus(Status(code, "why"), "field");
    EXPECT_EQ(error.http_status, http_status);
    const Json body = Parse(ErrorBody(error));
    EXPECT_EQ(body["error"]["message"], "why");
    EXPECT_EQ(body["error"]["param"], "field");
    EXPECT_FALSE(body["error"]["type"].get<std::string>().empty());
    EXPECT_TRUE(body["error"]["code"].is_string()) << http_status;
  }
  EXPECT_EQ(ErrorFromStatus(Status(StatusCode::kTooLarge, "")).code, "context_length_exceeded");
  EXPECT_EQ(ErrorFromStatus(Status(StatusCode::kInvalidArgument, "")).code, "invalid_value");
}

TEST(ErrorTest, NothingToNameIsNull) {
  const Json body = Parse(ErrorBody(TransportError(413, "", "why")));
  EXPECT_TRUE(body["error"]["param"].is_null());
  EXPECT_TRUE(body["error"]["code"].is_null());
}

}  // namespace
}  // namespace trellis
