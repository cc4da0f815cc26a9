// Anthropic's messages: what a request comes to, and how an answer is written.
#include <gtest/gtest.h>

#include "api/answer_writer.h"
#include "api/anthropic_requests.h"
#include "api/json_text.h"
#include "api/test_events.h"

namespace trellis {
namespace {

ChatRequest Read(const std::string& fields) {
  auto parsed = ParseMessagesRequest(R"({"model":"m","max_tokens":9,)" + fields + "}");
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
  return parsed.value();
}

std::string Wrong(const std::string& fields) {
  auto parsed = ParseMessagesRequest(R"({"model":"m","max_tokens":9,)" + fields + "}");
  if (parsed.ok()) return "nothing";
  EXPECT_EQ(parsed.error().http_status, 400);
  return parsed.error().param;
}

TEST(MessagesRequestTest, IsWhatAChatCompletionWouldSay) {
  const ChatRequest request =
      Read(R"("system":[{"type":"text","text":"Be"},{"type":"text","text":"brief."}],
    "messages":[{"role":"user","content":"Weather?"},
      {"role":"assistant","content":[{"type":"thinking","thinking":"Hm.","signature":"x"},
        {"type":"text","text":"I look."},
        {"type":"tool_use","id":"toolu_1","name":"weather","input":{"city":"Ulm","b":1}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"9 C"}]},
        {"type":"tool_result","tool_use_id":"toolu_2","content":"none","is_error":true},
        {"type":"text","text":"Go on."}]}],
    "temperature":0.5,"top_k":3,"stop_sequences":["X"],"stream":true,"metadata":{"user_id":"u"},
    "thinking":{"type":"disabled"})");
  ASSERT_EQ(request.messages.size(), 6u);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[0].content, "Be\nbrief.");
  EXPECT_EQ(request.messages[2].reasoning_content, "Hm.");
  EXPECT_EQ(request.messages[2].content, "I look.");
  const Json calls = Json::parse(request.messages[2].tool_calls_json);
  EXPECT_EQ(calls[0]["function"]["name"], "weather");
  EXPECT_EQ(Json::parse(calls[0]["function"]["arguments"].get<std::string>())["city"], "Ulm");
  EXPECT_EQ(request.messages[3].role, "tool");
  EXPECT_EQ(request.messages[3].tool_call_id, "toolu_1");
  EXPECT_EQ(request.messages[3].content, "9 C");
  EXPECT_EQ(request.messages[4].content, "Error: none");
  EXPECT_EQ(request.messages[5].role, "user");
  EXPECT_EQ(request.messages[5].content, "Go on.");
  EXPECT_EQ(request.generation.max_tokens, 9u);
  EXPECT_EQ(request.generation.sampling.top_k, 3);
  EXPECT_EQ(request.generation.stop, std::vector<std::string>{"X"});
  EXPECT_EQ(request.generation.user, "u");
  EXPECT_TRUE(request.generation.stream);
  EXPECT_FALSE(request.thinks);
}

TEST(MessagesRequestTest, ATurnKeepsAllThatItHasThought) {
  const ChatRequest request = Read(R"("messages":[{"role":"user","content":"a"},
    {"role":"assistant","content":[{"type":"thinking","thinking":"One."},
      {"type":"tool_use","id":"t","name":"f","input":{}},{"type":"redacted_thinking","data":"x"},
      {"type":"thinking","thinking":""},{"type":"thinking","thinking":"Two."},
      {"type":"text","text":"b"}]},{"role":"user","content":"c"}])");
  EXPECT_EQ(request.messages[1].reasoning_content, "One.\nTwo.");
  EXPECT_EQ(request.messages[1].content, "b");
}

TEST(MessagesRequestTest, AFormatIsASchemaInTheClientsOrder) {
  const std::string user = R"("messages":[{"role":"user","content":"a"}],)";
  const std::string format = R"({"type":"json_schema","schema":{"type":"object","properties":
    {"z":{"type":"integer"},"a":{"type":"string"}}}})";
  const ChatRequest request =
      Read(user + R"("output_config":{"effort":"low","format":)" + format + "}");
  EXPECT_EQ(request.generation.format.param, "output_config.format.schema");
  EXPECT_LT(request.generation.format.json_schema.find("\"z\""),
            request.generation.format.json_schema.find("\"a\""));
  EXPECT_EQ(Read(user + R"("output_format":)" + format).generation.format.json_schema,
            request.generation.format.json_schema);
  EXPECT_EQ(Read(user + R"("output_config":{"effort":"low","format":null})")
                .generation.format.json_schema,
            "");
  EXPECT_EQ(
      Wrong(user + R"("output_config":{"format":)" + format + R"(},"output_format":)" + format),
      "output_format");
  EXPECT_EQ(Wrong(user + R"("output_config":5)"), "output_config");
  EXPECT_EQ(Wrong(user + R"("output_config":{"format":{"type":"json_schema"}})"),
            "output_config.format.schema");
  EXPECT_EQ(Wrong(user + R"("output_format":{"type":"xml"})"), "output_format.type");
  EXPECT_EQ(Wrong(user + R"("output_format":{"type":"json_schema","schema":{"not":{}}})"),
            "output_format.schema");
}

TEST(MessagesRequestTest, ThoughtsAreAskedFor) {
  const std::string user = R"("messages":[{"role":"user","content":"a"}])";
  EXPECT_FALSE(Read(user).thinks);
  EXPECT_FALSE(Read(user + R"(,"thinking":null)").thinks);
  EXPECT_FALSE(Read(user + R"(,"thinking":{"type":"disabled"})").thinks);
  EXPECT_TRUE(Read(user + R"(,"thinking":{"type":"enabled","budget_tokens":1024})").thinks);
  EXPECT_TRUE(Read(user + R"(,"thinking":{"type":"adaptive"})").thinks);
  EXPECT_EQ(Wrong(user + R"(,"thinking":true)"), "thinking");
  auto counted = ParseCountTokensRequest("{" + user + R"(,"thinking":{"type":"enabled"}})");
  EXPECT_TRUE(counted.value().thinks) << "of the same prompt";
}

TEST(MessagesRequestTest, AStampOfTheClientIsTakenOut) {
  const std::string user = R"(,"messages":[{"role":"user","content":"a"}])";
  const std::string stamp = "x-anthropic-billing-header: cc_version=2.1.332.18b; cch=a5145;";
  const ChatRequest request = Read(R"("system":[{"type":"text","text":")" + stamp +
                                   R"("},{"type":"text","text":"S"}])" + user);
  EXPECT_EQ(request.messages[0].content, "S");
  EXPECT_EQ(Read(R"("system":")" + stamp + "\"" + user).messages[0].role, "user");
  EXPECT_EQ(Read(R"("system":"S\n)" + stamp + "\"" + user).messages[0].content, "S\n" + stamp);
}

TEST(MessagesRequestTest, ToolsAreWrittenAsOpenAis) {
  const std::string tools = R"("messages":[{"role":"user","content":"?"}],"tools":[
    {"name":"f","description":"D","input_schema":{"type":"object","properties":{"z":{},"a":{}}},
     "cache_control":{"type":"ephemeral"}}],)";
  const ChatRequest any =
      Read(tools + R"("tool_choice":{"type":"any","disable_parallel_tool_use":true})");
  EXPECT_EQ(any.tools_json,
            R"([{"type":"function","function":{"name":"f","description":"D","parameters":)"
            R"({"type":"object","properties":{"z":{},"a":{}}}}}])")
      << "in the client's order";
  EXPECT_EQ(any.tool_choice.mode, ToolChoice::Mode::kRequired);
  EXPECT_EQ(any.tool_choice.parallel, false);
  ASSERT_EQ(any.generation.breakpoints.size(), 1u);
  EXPECT_EQ(Read(tools + R"("tool_choice":{"type":"tool","name":"f"})").tool_choice.name, "f");
  EXPECT_EQ(Read(tools + R"("tool_choice":{"type":"none"})").tool_choice.mode,
            ToolChoice::Mode::kNone);
}

TEST(MessagesRequestTest, MarksCountMessagesAsTheyComeOut) {
  const ChatRequest request =
      Read(R"("system":[{"type":"text","text":"S","cache_control":{"type":"ephemeral","ttl":"1h"}}],
    "messages":[{"role":"user","content":[
      {"type":"tool_result","tool_use_id":"t","content":"r"},
      {"type":"text","text":"q","cache_control":{"type":"ephemeral"}}]},
      {"role":"user","content":"more"}])");
  ASSERT_EQ(request.generation.breakpoints.size(), 2u);
  EXPECT_EQ(request.generation.breakpoints[0].num_messages, 1u);
  EXPECT_EQ(request.generation.breakpoints[0].lifetime, std::chrono::hours(1));
  EXPECT_EQ(request.generation.breakpoints[1].num_messages, 3u) << "system, result, text";
}

TEST(MessagesRequestTest, TheSystemMaySpeakBetweenTurns) {
  const ChatRequest request = Read(R"("system":"S","messages":[{"role":"user","content":"a"},
    {"role":"system","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]},
    {"role":"assistant","content":"c"},{"role":"system","content":"d"},
    {"role":"user","content":"e"}])");
  std::string told;
  for (const ChatMessage& message : request.messages) told += message.role[0] + message.content;
  EXPECT_EQ(told, "sSuasbacsdue");
  ASSERT_EQ(request.generation.breakpoints.size(), 1u);
  EXPECT_EQ(request.generation.breakpoints[0].num_messages, 3u);
}

TEST(MessagesRequestTest, WhatIsWrongIsNamed) {
  const std::string user = R"("messages":[{"role":"user","content":"a"}])";
  EXPECT_EQ(ParseMessagesRequest(R"({"model":"m",)" + user + "}").error().param, "max_tokens");
  EXPECT_TRUE(
      ParseMessagesRequest(R"({"max_tokens":0,)" + user + "}").value().generation.only_prompt);
  EXPECT_TRUE(ParseCountTokensRequest(R"({"model":"m",)" + user + "}").ok());
  EXPECT_EQ(Wrong(R"("messages":[])"), "messages");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"tool","content":"a"}])"), "messages[0].role");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"system","content":[{"type":"tool_use"}]}])"),
            "messages[0].content[0]");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"user"}])"), "messages[0].content");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"user","content":[{"type":"image","source":{}}]}])"),
            "messages[0].content[0]");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"user","content":[{"type":"tool_use","name":"f"}]}])"),
            "messages[0].content[0]");
  EXPECT_EQ(Wrong(R"("messages":[{"role":"assistant","content":[{"type":"tool_use"}]}])"),
            "messages[0].content[0].name");
  EXPECT_EQ(Wrong(user + R"(,"tools":[{"name":"f","type":"web_search_20250305"}])"),
            "tools[0].type");
  EXPECT_EQ(Wrong(user + R"(,"tool_choice":{"type":"maybe"})"), "tool_choice.type");
  EXPECT_EQ(Wrong(user + R"(,"stop_sequences":[1])"), "stop_sequences[0]");
  EXPECT_EQ(Wrong(user + R"(,"mcp_servers":[{"type":"url","url":"http://a","name":"a"}])"),
            "mcp_servers");
  EXPECT_EQ(Wrong(user + R"(,"mcp_servers":[])"), "nothing");
}

// --- Answers ---

const AnswerHead kHead = {.id = "msg_1", .model = "m"};
const Usage kUsage = {.prompt_tokens = 100, .cached_tokens = 60, .completion_tokens = 7};

TEST(MessagesAnswerTest, Whole) {
  const auto writer = NewAnthropicWriter(kHead, 80);
  const Json answer = Json::parse(writer->Whole(
      {{.text = "Said.",
        .thoughts = "Thought.",
        .calls = {{.index = 0, .id = "call_1", .name = "f", .arguments = R"({"a":1})"}},
        .finish_reason = "tool_calls"}},
      kUsage, {}));
  EXPECT_EQ(answer["type"], "message");
  ASSERT_EQ(answer["content"].size(), 3u);
  EXPECT_EQ(answer["content"][0]["thinking"], "Thought.");
  EXPECT_EQ(answer["content"][1]["text"], "Said.");
  EXPECT_EQ(answer["content"][2]["input"]["a"], 1);
  EXPECT_EQ(answer["stop_reason"], "tool_use");
  EXPECT_EQ(answer["usage"], (Json{{"input_tokens", 20},
                                   {"cache_creation_input_tokens", 20},
                                   {"cache_read_input_tokens", 60},
                                   {"output_tokens", 7}}));
}

TEST(MessagesAnswerTest, AStreamOpensAndClosesItsBlocks) {
  const auto writer = NewAnthropicWriter(kHead, 0);
  std::string stream = writer->Begin(1, {.prompt_tokens = 100, .cached_tokens = 60});
  stream += writer->Piece({.thoughts = "T"}, nullptr);
  stream += writer->Piece({.thoughts = "U"}, nullptr);
  stream += writer->Piece({.text = "S"}, nullptr);
  stream += writer->KeepAlive();
  stream +=
      writer->Piece({.calls = {{.index = 0, .id = "c0", .name = "f", .arguments = "{"}}}, nullptr);
  stream += writer->Piece({.calls = {{.index = 0, .arguments = "}"},
                                     {.index = 1, .id = "c1", .name = "g", .arguments = "{}"}},
                           .finish_reason = "tool_calls"},
                          nullptr);
  stream += writer->End(kUsage, {});
  std::string shape;
  for (const auto& [name, data] : EventsOf(stream)) {
    shape += name;
    if (data.contains("index")) shape += " " + data["index"].dump();
    if (data.contains("content_block"))
      shape += " " + data["content_block"]["type"].get<std::string>();
    if (name == "content_block_delta") shape += " " + data["delta"]["type"].get<std::string>();
    shape += "\n";
  }
  EXPECT_EQ(shape, R"(message_start
content_block_start 0 thinking
content_block_delta 0 thinking_delta
content_block_delta 0 thinking_delta
content_block_stop 0
content_block_start 1 text
content_block_delta 1 text_delta
ping
content_block_stop 1
content_block_start 2 tool_use
content_block_delta 2 input_json_delta
content_block_delta 2 input_json_delta
content_block_stop 2
content_block_start 3 tool_use
content_block_delta 3 input_json_delta
content_block_stop 3
message_delta
message_stop
)");
  const auto events = EventsOf(stream);
  EXPECT_EQ(events.front().second["message"]["usage"]["cache_read_input_tokens"], 60);
  EXPECT_EQ(events.front().second["message"]["usage"]["input_tokens"], 40);
  EXPECT_EQ(events[events.size() - 2].second["delta"]["stop_reason"], "tool_use");
  EXPECT_EQ(events[events.size() - 2].second["usage"]["output_tokens"], 7);
}

TEST(MessagesAnswerTest, ReasonsToStop) {
  const auto reason = [](ChoiceText choice) {
    const Json answer = Json::parse(NewAnthropicWriter(kHead, 0)->Whole({choice}, kUsage, {}));
    return answer["stop_reason"].get<std::string>() + " " + answer["stop_sequence"].dump();
  };
  EXPECT_EQ(reason({.finish_reason = "stop"}), "end_turn null");
  EXPECT_EQ(reason({.finish_reason = "length"}), "max_tokens null");
  EXPECT_EQ(reason({.stop_hit = "X", .finish_reason = "stop"}), "stop_sequence \"X\"");
  EXPECT_EQ(EventsOf(NewAnthropicWriter(kHead, 0)->Error(InvalidField("a", "b")))[0]
                .second["error"]["type"],
            "invalid_request_error");
}

}  // namespace
}  // namespace trellis
