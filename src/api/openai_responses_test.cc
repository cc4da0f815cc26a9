// OpenAI's responses: what a request comes to, and how an answer is written.
#include "api/openai_responses.h"

#include <gtest/gtest.h>

#include "api/answer_writer.h"
#include "api/json_text.h"
#include "api/test_events.h"

namespace trellis {
namespace {

ResponsesRequest Read(const std::string& fields) {
  auto parsed = ParseResponsesRequest("{" + fields + "}");
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
  return parsed.value();
}

std::string Wrong(const std::string& fields) {
  auto parsed = ParseResponsesRequest("{" + fields + "}");
  if (parsed.ok()) return "nothing";
  EXPECT_EQ(parsed.error().http_status, 400);
  return parsed.error().param;
}

TEST(ResponsesRequestTest, ItemsOfOneTurnAreOneMessage) {
  const ResponsesRequest request = Read(R"("instructions":"Be brief.","input":[
    {"role":"developer","content":"D"},
    {"type":"message","role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_text","text":"b"}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"Hm."}]},
    {"type":"message","id":"msg_1","status":"completed","role":"assistant",
     "content":[{"type":"output_text","text":"I look.","annotations":[]}]},
    {"type":"function_call","id":"fc_1","call_id":"c1","name":"f","arguments":"{\"z\": 1, \"a\": 2}"},
    {"type":"function_call","id":"fc_2","call_id":"c2","name":"g","arguments":"{}"},
    {"type":"function_call_output","call_id":"c1","output":"one"},
    {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"two"}]},
    {"type":"message","role":"assistant","content":"Done."},
    {"type":"reasoning","id":"rs_2","summary":[{"type":"summary_text","text":"So."}]},
    {"type":"message","role":"assistant","content":"More."}])");
  const std::vector<ChatMessage>& messages = request.chat.messages;
  ASSERT_EQ(messages.size(), 7u);
  EXPECT_EQ(request.instructions, "Be brief.");
  EXPECT_EQ(messages[0].role, "system");
  EXPECT_EQ(messages[1].content, "a\nb");
  EXPECT_EQ(messages[2].role, "assistant");
  EXPECT_EQ(messages[2].reasoning_content, "Hm.");
  EXPECT_EQ(messages[2].content, "I look.");
  const Json calls = Json::parse(messages[2].tool_calls_json);
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0]["id"], "c1");
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"z": 1, "a": 2})");
  EXPECT_EQ(calls[1]["function"]["name"], "g");
  EXPECT_EQ(messages[3].role, "tool");
  EXPECT_EQ(messages[3].tool_call_id, "c1");
  EXPECT_EQ(messages[4].content, "two");
  EXPECT_EQ(messages[5].content, "Done.");
  EXPECT_EQ(messages[6].reasoning_content, "So.");
  EXPECT_EQ(messages[6].content, "More.");
}

TEST(ResponsesRequestTest, FieldsArrive) {
  const ResponsesRequest request =
      Read(R"("input":"hi","previous_response_id":"resp_1","store":false,
    "model":"m","temperature":0.5,"top_p":0.25,"max_output_tokens":7,"stream":true,"user":"u",
    "prompt_cache_key":"k","prompt_cache_retention":"24h","reasoning":{"effort":"none"},
    "tools":[{"type":"web_search"},{"type":"function","name":"f","strict":true,
              "parameters":{"type":"object","properties":{"z":{},"a":{}}}}],
    "tool_choice":{"type":"function","name":"f"},"parallel_tool_calls":false,
    "text":{"format":{"type":"json_schema","name":"n","schema":{"required":["z"],"type":"object"}}},
    "include":["reasoning.encrypted_content"],"metadata":{"a":"b"})");
  EXPECT_EQ(request.previous_id, "resp_1");
  EXPECT_FALSE(request.is_kept);
  const ChatRequest& chat = request.chat;
  EXPECT_FALSE(chat.thinks);
  EXPECT_EQ(chat.tools_json, R"([{"type":"function","function":{"name":"f","parameters":)"
                             R"({"type":"object","properties":{"z":{},"a":{}}}}}])");
  EXPECT_EQ(chat.tool_choice.mode, ToolChoice::Mode::kRequired);
  EXPECT_EQ(chat.tool_choice.name, "f");
  EXPECT_EQ(chat.tool_choice.parallel, false);
  EXPECT_EQ(chat.generation.max_tokens, 7u);
  EXPECT_FLOAT_EQ(chat.generation.sampling.temperature, 0.5f);
  EXPECT_TRUE(chat.generation.stream);
  EXPECT_EQ(chat.generation.prompt_cache_key, "k");
  EXPECT_EQ(chat.generation.breakpoints.size(), 1u);
  EXPECT_EQ(chat.generation.format.json_schema, R"({"required":["z"],"type":"object"})");
  const Json repeated = Json::parse(request.repeated);
  EXPECT_EQ(repeated["metadata"]["a"], "b");
  EXPECT_EQ(repeated["tools"].size(), 2u);
  EXPECT_EQ(repeated["truncation"], "disabled");
}

TEST(ResponsesRequestTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(Wrong(R"("model":"m")"), "input");
  EXPECT_EQ(Wrong(R"("input":[])"), "input");
  EXPECT_EQ(Wrong(R"("input":[1])"), "input[0]");
  EXPECT_EQ(Wrong(R"("input":[{"role":"user"}])"), "input[0].content");
  EXPECT_EQ(Wrong(R"("input":[{"role":"king","content":"a"}])"), "input[0].role");
  EXPECT_EQ(
      Wrong(R"("input":[{"role":"user","content":[{"type":"input_image","image_url":"x"}]}])"),
      "input[0].content[0].type");
  EXPECT_EQ(Wrong(R"("input":[{"type":"item_reference","id":"x"}])"), "input[0].type");
  EXPECT_EQ(Wrong(R"("input":[{"type":"function_call","call_id":"c"}])"), "input[0].name");
  EXPECT_EQ(Wrong(R"("input":[{"type":"function_call_output","call_id":"c"}])"), "input[0].output");
  EXPECT_EQ(Wrong(R"("input":"a","tool_choice":"required")"), "tool_choice");
  EXPECT_EQ(
      Wrong(
          R"("input":"a","tools":[{"type":"web_search"}],"tool_choice":{"type":"function","name":"f"})"),
      "tool_choice");
  EXPECT_EQ(
      Wrong(
          R"("input":"a","tools":[{"type":"function","name":"g"}],"tool_choice":{"type":"function","name":"f"})"),
      "tool_choice.name");
  EXPECT_EQ(Wrong(R"("input":"a","background":true)"), "background");
  EXPECT_EQ(Wrong(R"("input":"a","truncation":"auto")"), "truncation");
  EXPECT_EQ(Wrong(R"("input":"a","top_logprobs":2)"), "top_logprobs");
  EXPECT_EQ(
      Wrong(R"("input":"a","include":["file_search_call.results","message.output_text.logprobs"])"),
      "include");
  Read(R"("input":"a","include":["reasoning.encrypted_content"],"top_logprobs":0)");
  EXPECT_EQ(Wrong(R"("input":"a","text":{"format":{"type":"xml"}})"), "text.format.type");
  EXPECT_EQ(Wrong(R"("input":"a","text":{"format":{"type":"json_schema"}})"), "text.format.schema");
}

// --- Answers ---

const AnswerHead kHead = {.id = "resp_1a", .model = "m"};
const Usage kUsage = {
    .prompt_tokens = 100, .cached_tokens = 60, .completion_tokens = 7, .reasoning_tokens = 3};

std::unique_ptr<AnswerWriter> NewWriter() {
  return NewResponsesWriter(kHead, Read(R"("input":"a","metadata":{"k":"v"})").repeated);
}

std::vector<Json> NumberedEventsOf(const std::string& stream) {
  std::vector<Json> events;
  for (auto& [name, data] : EventsOf(stream)) {
    EXPECT_EQ(data["sequence_number"], events.size());
    events.push_back(std::move(data));
  }
  return events;
}

TEST(ResponsesAnswerTest, Whole) {
  const Json answer = Json::parse(NewWriter()->Whole(
      {{.text = "Said.",
        .thoughts = "Thought.",
        .calls = {{.index = 0, .id = "call_1", .name = "f", .arguments = R"({"a":1})"}},
        .finish_reason = "tool_calls"}},
      kUsage, {}));
  EXPECT_EQ(answer["object"], "response");
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_EQ(answer["metadata"]["k"], "v");
  ASSERT_EQ(answer["output"].size(), 3u);
  EXPECT_EQ(answer["output"][0]["content"][0]["text"], "Thought.");
  EXPECT_EQ(answer["output"][1]["content"][0]["text"], "Said.");
  EXPECT_EQ(answer["output"][2]["call_id"], "call_1");
  EXPECT_EQ(answer["output"][2]["arguments"], R"({"a":1})");
  EXPECT_EQ(answer["usage"]["input_tokens_details"]["cached_tokens"], 60);
  EXPECT_EQ(answer["usage"]["output_tokens_details"]["reasoning_tokens"], 3);
  EXPECT_EQ(answer["usage"]["total_tokens"], 107);
  const Json cut =
      Json::parse(NewWriter()->Whole({{.text = "Sai", .finish_reason = "length"}}, kUsage, {}));
  EXPECT_EQ(cut["status"], "incomplete");
  EXPECT_EQ(cut["incomplete_details"]["reason"], "max_output_tokens");
}

TEST(ResponsesAnswerTest, AStreamOpensAndClosesItsItems) {
  const auto writer = NewWriter();
  std::string stream = writer->Begin(1, {});
  stream += writer->Piece({.thoughts = "T"}, nullptr);
  stream += writer->Piece({.text = "S"}, nullptr);
  stream += writer->Piece({.text = "U"}, nullptr);
  stream +=
      writer->Piece({.calls = {{.index = 0, .id = "c0", .name = "f", .arguments = "{"}}}, nullptr);
  stream += writer->Piece({.calls = {{.index = 0, .arguments = "}"},
                                     {.index = 1, .id = "c1", .name = "g", .arguments = "{}"}},
                           .finish_reason = "tool_calls"},
                          nullptr);
  stream += writer->End(kUsage, {});
  std::string shape;
  const std::vector<Json> events = NumberedEventsOf(stream);
  for (const Json& event : events) {
    shape += event["type"].get<std::string>().substr(std::string("response.").size());
    if (event.contains("output_index")) shape += " " + event["output_index"].dump();
    if (event.contains("delta")) shape += " " + event["delta"].get<std::string>();
    shape += "\n";
  }
  EXPECT_EQ(shape, R"(created
in_progress
output_item.added 0
content_part.added 0
reasoning_text.delta 0 T
reasoning_text.done 0
content_part.done 0
output_item.done 0
output_item.added 1
content_part.added 1
output_text.delta 1 S
output_text.delta 1 U
output_text.done 1
content_part.done 1
output_item.done 1
output_item.added 2
function_call_arguments.delta 2 {
function_call_arguments.delta 2 }
function_call_arguments.done 2
output_item.done 2
output_item.added 3
function_call_arguments.delta 3 {}
function_call_arguments.done 3
output_item.done 3
completed
)");
  const Json& output = events.back()["response"]["output"];
  ASSERT_EQ(output.size(), 4u);
  EXPECT_EQ(output[1]["content"][0]["text"], "SU");
  EXPECT_EQ(output[2]["arguments"], "{}");
  EXPECT_NE(output[2]["id"], output[3]["id"]);
  const Json failed = NumberedEventsOf(NewWriter()->Error(InvalidField("a", "b")))[0];
  EXPECT_EQ(failed["type"], "response.failed");
  EXPECT_EQ(failed["response"]["error"]["message"], "b");
}

}  // namespace
}  // namespace trellis
