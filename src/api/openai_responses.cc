#include "api/openai_responses.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "api/cache_fields.h"
#include "api/field_reader.h"
#include "api/format_fields.h"
#include "api/generation_fields.h"
#include "api/message_fields.h"
#include "api/tool_fields.h"

namespace trellis {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// What items make, in their order.
struct Turns {
  std::vector<ChatMessage> messages;
  OrderedJson calls = OrderedJson::array();  // of the last message, while it is the model's

  ChatMessage& Add(const std::string& role) {
    Close();
    ChatMessage& message = messages.emplace_back();
    message.role = role;
    return message;
  }
  // The model's turn that the next item belongs to.
  ChatMessage& Model() {
    const bool goes_on = !messages.empty() && messages.back().role == "assistant";
    return goes_on ? messages.back() : Add("assistant");
  }
  void Close() {
    if (!calls.empty()) messages.back().tool_calls_json = calls.dump();
    calls = OrderedJson::array();
  }
};

// Of a part: "text" and its like.
std::string ReadText(FieldReader& part, const char* field) {
  std::string text;
  if (part.ok() && part.Find(field) == nullptr) {
    part.Fail(InvalidField(part.ParamOf(field), part.ParamOf(field) + " is missing"));
  }
  part.String(field, &text);
  return text;
}

// A string, or an array of parts, which are joined by line ends.
std::string ReadContent(FieldReader& outer, const Json& value, const std::string& param) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) {
    outer.FailType(param, "a string or an array of parts", value);
    return "";
  }
  std::string text;
  for (size_t i = 0; i < value.size() && outer.ok(); i++) {
    const std::string part_param = fmt::format("{}[{}]", param, i);
    if (!value[i].is_object()) {
      outer.FailType(part_param, "an object", value[i]);
      break;
    }
    FieldReader part(value[i], part_param);
    std::string type;
    part.String("type", &type);
    if (i > 0) text += '\n';
    if (type == "input_text" || type == "output_text" || type == "reasoning_text" ||
        type == "summary_text" || type == "text") {
      text += ReadText(part, "text");
    } else if (type == "refusal") {
      text += ReadText(part, "refusal");
    } else {
      part.Fail(UnsupportedField(
          part.ParamOf("type"),
          fmt::format("{} is \"{}\": only text can be read here; images, audio and files are not "
                      "supported",
                      part.ParamOf("type"), Excerpt(type))));
    }
    if (!part.ok()) outer.Fail(part.error());
  }
  return text;
}

std::string ReadNeededContent(FieldReader& item, const char* field) {
  const std::string param = item.ParamOf(field);
  if (const Json* content = item.Find(field)) return ReadContent(item, *content, param);
  item.Fail(InvalidField(param, param + " is missing"));
  return "";
}

void ReadMessage(FieldReader& item, Turns* turns) {
  std::string role;
  ReadRole(item, &role);
  std::string text = ReadNeededContent(item, "content");
  if (!item.ok()) return;
  const bool goes_on =
      role == "assistant" && turns->Model().content.empty() && turns->calls.empty();
  ChatMessage& message = goes_on ? turns->Model() : turns->Add(role);
  message.content = std::move(text);
}

void ReadThoughts(FieldReader& item, Turns* turns) {
  const Json* content = item.Find("content");
  // Others' models give a summary alone, and no one can read what is encrypted.
  const char* field = content != nullptr && !content->empty() ? "content" : "summary";
  if (item.Find(field) == nullptr) return;
  std::string text = ReadContent(item, *item.Find(field), item.ParamOf(field));
  if (!item.ok() || text.empty()) return;
  const ChatMessage& now = turns->Model();
  const bool is_new = now.content.empty() && now.reasoning_content.empty() && turns->calls.empty();
  ChatMessage& message = is_new ? turns->Model() : turns->Add("assistant");
  message.reasoning_content = std::move(text);
}

void ReadCall(FieldReader& item, std::string_view text, Turns* turns) {
  OrderedJson call;
  ReadFlatCall(item, text, {.id = "call_id", .arguments = "arguments"}, &call);
  if (!item.ok()) return;
  turns->Model();
  turns->calls.push_back(std::move(call));
}

void ReadItem(FieldReader& body, const Json& value, std::string_view text, const std::string& param,
              Turns* turns) {
  if (!value.is_object()) return body.FailType(param, "an object", value);
  FieldReader item(value, param);
  std::string type = "message";
  item.String("type", &type);
  if (type == "message") {
    ReadMessage(item, turns);
  } else if (type == "reasoning") {
    ReadThoughts(item, turns);
  } else if (type == "function_call") {
    ReadCall(item, text, turns);
  } else if (type == "function_call_output") {
    std::string id, output = ReadNeededContent(item, "output");
    item.String("call_id", &id);
    ChatMessage& message = turns->Add("tool");
    message.tool_call_id = std::move(id);
    message.content = std::move(output);
  } else if (item.ok()) {
    item.Fail(
        UnsupportedField(item.ParamOf("type"),
                         fmt::format("{} is \"{}\"; it can be message, reasoning, function_call or "
                                     "function_call_output here",
                                     item.ParamOf("type"), Excerpt(type))));
  }
  if (!item.ok()) body.Fail(item.error());
}

void ReadInput(FieldReader& body, std::string_view text, std::vector<ChatMessage>* out) {
  const Json* input = body.Find("input");
  if (input == nullptr) return body.Fail(InvalidField("input", "input is missing"));
  Turns turns;
  if (input->is_string()) {
    turns.Add("user").content = input->get<std::string>();
  } else if (!input->is_array()) {
    return body.FailType("input", "a string or an array of items", *input);
  } else if (input->empty()) {
    return body.Fail(InvalidField("input", "input is empty"));
  } else {
    const std::vector<std::string_view> texts = RawElements(RawMember(text, "input"));
    for (size_t i = 0; i < input->size() && body.ok(); i++)
      ReadItem(body, (*input)[i], texts[i], fmt::format("input[{}]", i), &turns);
  }
  turns.Close();
  if (turns.messages.empty()) body.Fail(InvalidField("input", "input says nothing"));
  *out = std::move(turns.messages);
}

// "text": {"format": ...}, which has a schema's fields side by side.
void ReadTextFormat(FieldReader& body, std::string_view text, TextFormat* out) {
  const Json* holder = body.Find("text");
  if (holder == nullptr) return;
  if (!holder->is_object()) return body.FailType("text", "an object", *holder);
  const Json* format = FieldReader(*holder, "text").Find("format");
  if (format == nullptr) return;
  ReadFlatFormat(body, "text.format", *format, RawMember(RawMember(text, "text"), "format"), out);
}

// A function that is chosen has its name beside its type.
void ReadChoice(FieldReader& body, const std::string& tools_json, ToolChoice* out) {
  bool parallel = true;
  body.Bool("parallel_tool_calls", &parallel);
  if (body.Find("parallel_tool_calls") != nullptr) out->parallel = parallel;
  const Json* value = body.Find("tool_choice");
  if (value == nullptr || *value == "auto") return;
  if (*value == "none") {
    out->mode = ToolChoice::Mode::kNone;
    return;
  }
  out->mode = ToolChoice::Mode::kRequired;
  if (value->is_object()) {
    FieldReader choice(*value, "tool_choice");
    std::string type;
    choice.String("type", &type);
    choice.String("name", &out->name);
    if (choice.ok() && (type != "function" || out->name.empty())) {
      choice.Fail(UnsupportedField(
          "tool_choice", "tool_choice must be none, auto, required, or a function with its name"));
    }
    if (!choice.ok()) return body.Fail(choice.error());
  } else if (*value != "required") {
    return body.FailType("tool_choice", "none, auto, required or an object", *value);
  }
  CheckChoice(body, tools_json, "tool_choice.name", *out);
}

void ReadReasoning(FieldReader& body, ChatRequest* out) {
  const Json* value = body.Find("reasoning");
  if (value == nullptr) return;
  if (!value->is_object()) return body.FailType("reasoning", "an object", *value);
  FieldReader reasoning(*value, "reasoning");
  std::string effort;
  reasoning.String("effort", &effort);
  out->thinks = effort != "none";
  if (!reasoning.ok()) body.Fail(reasoning.error());
}

void RefuseOfResponses(FieldReader& body) {
  const auto refuse = [&](const char* name, const char* why, const Json& neutral) {
    const Json* value = body.Find(name);
    if (value == nullptr || *value == neutral) return;
    body.Fail(UnsupportedField(name, fmt::format("{} is not supported: {}", name, why)));
  };
  refuse("background", "answers are given while the client waits", false);
  refuse("conversation", "use previous_response_id", nullptr);
  refuse("prompt", "there are no stored prompts here", nullptr);
  refuse("truncation", "a prompt is never cut", "disabled");
  static const char kLogprobs[] = "ask /v1/chat/completions for them";
  refuse("top_logprobs", kLogprobs, 0);
  const Json* include = body.Find("include");  // its other values are of what is not made here
  for (size_t i = 0; include != nullptr && include->is_array() && i < include->size(); i++) {
    if ((*include)[i] != "message.output_text.logprobs") continue;
    body.Fail(UnsupportedField(
        "include", fmt::format("include: log probabilities are not supported: {}", kLogprobs)));
  }
}

// The official SDKs show these as members of a response.
std::string Repeated(std::string_view text, FieldReader& body) {
  OrderedJson out = {{"instructions", nullptr},
                     {"max_output_tokens", nullptr},
                     {"metadata", OrderedJson::object()},
                     {"parallel_tool_calls", true},
                     {"previous_response_id", nullptr},
                     {"reasoning", OrderedJson::object()},
                     {"store", true},
                     {"temperature", 1},
                     {"text", {{"format", {{"type", "text"}}}}},
                     {"tool_choice", "auto"},
                     {"tools", OrderedJson::array()},
                     {"top_p", 1},
                     {"truncation", "disabled"}};
  for (const auto& [name, value] : out.items()) {
    if (body.Find(name.c_str()) == nullptr) continue;
    const std::string_view given = RawMember(text, name);
    constexpr size_t kMost = 64u << 10;
    const bool is_text = name == "instructions" || name == "tools";  // looked at elsewhere
    if (!is_text && (given.size() > kMost || IsUnwieldy(*body.Find(name.c_str())))) {
      body.Fail(InvalidField(name, fmt::format("{} is too large", name)));
      break;
    }
    value = OrderedJson::parse(given);
  }
  return out.dump();
}

void ReadGeneration(FieldReader& body, GenerationFields* out) {
  body.Number("temperature", 0, 100, &out->sampling.temperature);
  body.Number("top_p", 0, 1, &out->sampling.top_p);
  int64_t most = 0;
  body.Integer("max_output_tokens", 1, kInt32Max, &most);
  out->max_tokens = static_cast<size_t>(most);
  body.Bool("stream", &out->stream);
  ReadName(body, "user", &out->user);
  ReadName(body, "safety_identifier", &out->user);
  ReadName(body, "prompt_cache_key", &out->prompt_cache_key);
  ReadWholePromptRetention(body, &out->breakpoints);
  ReadCacheUse(body, out);
}

}  // namespace

ApiResult<ResponsesRequest> ParseResponsesRequest(std::string_view text) {
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  ResponsesRequest request;
  ChatRequest& chat = request.chat;
  ReadInput(body, text, &chat.messages);
  body.String("instructions", &request.instructions);
  body.String("previous_response_id", &request.previous_id);
  body.Bool("store", &request.is_kept);
  constexpr FlatTools kForm = {"function", "parameters", FlatTools::Others::kLeaveOut};
  ReadFlatTools(body, text, kForm, &chat.tools_json);
  ReadChoice(body, chat.tools_json, &chat.tool_choice);
  ReadReasoning(body, &chat);
  ReadTextFormat(body, text, &chat.generation.format);
  ReadGeneration(body, &chat.generation);
  RefuseOfResponses(body);
  RefuseUnsupported(body);
  if (!body.ok()) return body.error();
  request.repeated = Repeated(text, body);
  if (!body.ok()) return body.error();
  return request;
}

}  // namespace trellis
