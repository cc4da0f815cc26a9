#include "api/anthropic_requests.h"

#include <fmt/format.h>

#include <algorithm>

#include <limits>
#include <utility>

#include "api/cache_fields.h"
#include "api/field_reader.h"
#include "api/generation_fields.h"
#include "api/tool_fields.h"

namespace trellis {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// What is read so far: breakpoints count messages as they come out.
struct Chat {
  std::vector<ChatMessage> messages;
  std::vector<CacheBreakpoint> breakpoints;

  ChatMessage& Add(const std::string& role) {
    ChatMessage& message = messages.emplace_back();
    message.role = role;
    return message;
  }
};

ApiError NotText(const std::string& param, const std::string& type) {
  return UnsupportedField(param, fmt::format("{} is a part of type \"{}\": this model reads text",
                                             param, Excerpt(type)));
}

std::string TypeOf(FieldReader& part) {
  std::string type;
  part.String("type", &type);
  if (part.ok() && type.empty()) {
    part.Fail(InvalidField(part.ParamOf("type"), part.ParamOf("type") + " is missing"));
  }
  return type;
}

// A string, or an array of text parts (of a tool's result, or the system prompt).
void ReadTexts(FieldReader& outer, const Json& value, const std::string& param, Chat* chat,
               ChatMessage* out) {
  if (value.is_string()) {
    out->content = value.get<std::string>();
    return;
  }
  if (!value.is_array()) return outer.FailType(param, "a string or an array of parts", value);
  for (size_t i = 0; i < value.size() && outer.ok(); i++) {
    const std::string part_param = fmt::format("{}[{}]", param, i);
    if (!value[i].is_object()) return outer.FailType(part_param, "an object", value[i]);
    FieldReader part(value[i], part_param);
    const std::string type = TypeOf(part);
    std::string text;
    if (part.ok() && type != "text") part.Fail(NotText(part_param, type));
    part.String("text", &text);
    if (i > 0) out->content += '\n';
    out->content += text;
    ReadCacheControl(part, chat->messages.size(), &chat->breakpoints);
    if (!part.ok()) outer.Fail(part.error());
  }
}

// Claude Code begins its system prompt with a line "x-anthropic-billing-header: ...;", a stamp that
// is another in each conversation and means nothing to a model: with it no prompt would be found
// again.
void TakeOutStamp(std::string* system) {
  if (!system->starts_with("x-anthropic-billing-header:")) return;
  system->erase(0, std::min(system->find('\n'), system->size() - 1) + 1);
}

void ReadSystem(FieldReader& body, Chat* chat) {
  const Json* system = body.Find("system");
  if (system == nullptr) return;
  ReadTexts(body, *system, "system", chat, &chat->Add("system"));
  TakeOutStamp(&chat->messages.back().content);
  if (chat->messages.back().content.empty()) chat->messages.pop_back();
}

void ReadToolUse(FieldReader& part, std::string_view text, OrderedJson* calls) {
  OrderedJson call;
  ReadFlatCall(part, text, {.id = "id", .arguments = "input"}, &call);
  if (part.ok()) calls->push_back(std::move(call));
}

void ReadToolResult(FieldReader& part, Chat* chat) {
  ChatMessage& message = chat->Add("tool");
  part.String("tool_use_id", &message.tool_call_id);
  bool is_error = false;
  part.Bool("is_error", &is_error);
  if (const Json* content = part.Find("content")) {
    ReadTexts(part, *content, part.ParamOf("content"), chat, &chat->messages.back());
  }
  // OpenAI's messages have no place for it; a model reads it as well.
  if (is_error) chat->messages.back().content.insert(0, "Error: ");
}

// Blocks of one message. Results of tools come first, as messages of their own; all text is one.
void ReadBlocks(FieldReader& outer, const Json& blocks, std::string_view text,
                const std::string& param, const std::string& role, Chat* chat) {
  const std::vector<std::string_view> texts = RawElements(text);
  ChatMessage said;
  said.role = role;
  OrderedJson calls = OrderedJson::array();
  std::vector<size_t> marks;  // blocks with a cache_control
  for (size_t i = 0; i < blocks.size() && outer.ok(); i++) {
    const std::string part_param = fmt::format("{}[{}]", param, i);
    if (!blocks[i].is_object()) return outer.FailType(part_param, "an object", blocks[i]);
    FieldReader part(blocks[i], part_param);
    const std::string type = TypeOf(part);
    if (type == "text") {
      std::string more;
      part.String("text", &more);
      if (!said.content.empty()) said.content += '\n';
      said.content += more;
    } else if (type == "thinking" && role == "assistant") {
      part.String("thinking", &said.reasoning_content);
    } else if (type == "redacted_thinking" && role == "assistant") {
      // Nobody but who wrote it can read it.
    } else if (type == "tool_use" && role == "assistant") {
      ReadToolUse(part, texts[i], &calls);
    } else if (type == "tool_result" && role == "user") {
      ReadToolResult(part, chat);
    } else if (part.ok()) {
      part.Fail(NotText(part_param, type));
    }
    if (part.Find("cache_control") != nullptr) marks.push_back(i);
    if (!part.ok()) outer.Fail(part.error());
  }
  if (!outer.ok()) return;
  if (!calls.empty()) said.tool_calls_json = calls.dump();
  const bool has_more = !said.content.empty() || !calls.empty() || !said.reasoning_content.empty();
  if (has_more || blocks.empty()) chat->messages.push_back(std::move(said));
  for (const size_t i : marks) {
    FieldReader part(blocks[i], fmt::format("{}[{}]", param, i));
    ReadCacheControl(part, chat->messages.size(), &chat->breakpoints);
    if (!part.ok()) outer.Fail(part.error());
  }
}

void ReadMessages(FieldReader& body, std::string_view text, Chat* chat) {
  const Json* messages = body.Find("messages");
  if (messages == nullptr) return body.Fail(InvalidField("messages", "messages is missing"));
  if (!messages->is_array()) return body.FailType("messages", "an array of messages", *messages);
  if (messages->empty()) {
    return body.Fail(InvalidField("messages", "messages must hold at least one message"));
  }
  const std::vector<std::string_view> texts = RawElements(RawMember(text, "messages"));
  for (size_t i = 0; i < messages->size() && body.ok(); i++) {
    const std::string param = fmt::format("messages[{}]", i);
    const Json& value = (*messages)[i];
    if (!value.is_object()) return body.FailType(param, "an object", value);
    FieldReader message(value, param);
    std::string role;
    message.String("role", &role);
    if (message.ok() && role != "user" && role != "assistant" && role != "system") {
      message.Fail(InvalidField(message.ParamOf("role"),
                                fmt::format("{} is \"{}\"; it must be user, assistant or system",
                                            message.ParamOf("role"), Excerpt(role))));
    }
    const Json* content = message.Find("content");
    const std::string content_param = message.ParamOf("content");
    if (content == nullptr) {
      message.Fail(InvalidField(content_param, content_param + " is missing"));
    } else if (role == "system") {  // Claude Code has them between its turns
      ReadTexts(message, *content, content_param, chat, &chat->Add(role));
    } else if (content->is_string()) {
      chat->Add(role).content = content->get<std::string>();
    } else if (content->is_array()) {
      ReadBlocks(message, *content, RawMember(texts[i], "content"), content_param, role, chat);
    } else {
      message.FailType(content_param, "a string or an array of blocks", *content);
    }
    if (!message.ok()) body.Fail(message.error());
  }
}

void ReadTools(FieldReader& body, std::string_view text, ChatRequest* out, Chat* chat) {
  constexpr FlatTools kForm = {"custom", "input_schema", FlatTools::Others::kFail};
  ReadFlatTools(body, text, kForm, &out->tools_json);
  const Json* tools = body.Find("tools");
  for (size_t i = 0; tools != nullptr && i < tools->size() && body.ok(); i++) {
    FieldReader tool((*tools)[i], fmt::format("tools[{}]", i));
    ReadCacheControl(tool, 0, &chat->breakpoints);
    if (!tool.ok()) body.Fail(tool.error());
  }
}

void ReadToolChoice(FieldReader& body, ChatRequest* out) {
  const Json* value = body.Find("tool_choice");
  if (value == nullptr) return;
  if (!value->is_object()) return body.FailType("tool_choice", "an object", *value);
  FieldReader choice(*value, "tool_choice");
  std::string type;
  choice.String("type", &type);
  choice.String("name", &out->tool_choice.name);
  bool not_parallel = false;
  choice.Bool("disable_parallel_tool_use", &not_parallel);
  if (not_parallel) out->tool_choice.parallel = false;
  if (type == "any" || type == "tool") {
    out->tool_choice.mode = ToolChoice::Mode::kRequired;
  } else if (type == "none") {
    out->tool_choice.mode = ToolChoice::Mode::kNone;
  } else if (choice.ok() && type != "auto") {
    choice.Fail(InvalidField(
        "tool_choice.type", fmt::format("tool_choice.type is \"{}\"; it must be auto, any, tool or "
                                        "none",
                                        Excerpt(type))));
  }
  if (type != "tool") out->tool_choice.name.clear();
  if (!choice.ok()) return body.Fail(choice.error());
  CheckChoice(body, out->tools_json, "tool_choice.name", out->tool_choice);
}

void ReadThinking(FieldReader& body, ChatRequest* out) {
  const Json* value = body.Find("thinking");
  if (value == nullptr) return;
  if (!value->is_object()) return body.FailType("thinking", "an object", *value);
  FieldReader thinking(*value, "thinking");
  std::string type;
  thinking.String("type", &type);
  out->thinks = type != "disabled";
  if (!thinking.ok()) body.Fail(thinking.error());
}

enum class MaxTokens { kNeeded, kNot };

ApiResult<ChatRequest> Parse(std::string_view text, MaxTokens max_tokens) {
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  ChatRequest request;
  Chat chat;
  ReadSystem(body, &chat);
  ReadTools(body, text, &request, &chat);
  ReadMessages(body, text, &chat);
  ReadToolChoice(body, &request);
  ReadThinking(body, &request);
  GenerationFields& generation = request.generation;
  body.Number("temperature", 0, 100, &generation.sampling.temperature);
  body.Number("top_p", 0, 1, &generation.sampling.top_p);
  int64_t top_k = 0, most = -1;
  body.Integer("top_k", 0, kInt32Max, &top_k);
  generation.sampling.top_k = static_cast<int32_t>(top_k);
  body.Integer("max_tokens", 0, kInt32Max, &most);
  if (body.ok() && max_tokens == MaxTokens::kNeeded && most < 0) {
    body.Fail(InvalidField("max_tokens", "max_tokens is missing"));
  }
  generation.max_tokens = static_cast<size_t>(std::max<int64_t>(most, 0));
  generation.only_prompt = most == 0;
  ReadStop(body, "stop_sequences", &generation.stop);
  body.Bool("stream", &generation.stream);
  if (const Json* metadata = body.Find("metadata")) {
    FieldReader inner(*metadata, "metadata");
    ReadName(inner, "user_id", &generation.user);
    if (!inner.ok()) body.Fail(inner.error());
  }
  ReadCacheControl(body, kWholePrompt, &chat.breakpoints);
  ReadCacheUse(body, &generation);
  if (chat.messages.empty()) body.Fail(InvalidField("messages", "messages say nothing"));
  if (!body.ok()) return body.error();
  generation.breakpoints = std::move(chat.breakpoints);
  request.messages = std::move(chat.messages);
  request.continues = EndsInPart(request.messages);
  return request;
}

}  // namespace

ApiResult<ChatRequest> ParseMessagesRequest(std::string_view body) {
  return Parse(body, MaxTokens::kNeeded);
}

ApiResult<ChatRequest> ParseCountTokensRequest(std::string_view body) {
  return Parse(body, MaxTokens::kNot);
}

}  // namespace trellis
