#include "api/requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "api/cache_fields.h"
#include "api/field_reader.h"
#include "api/generation_fields.h"
#include "api/json_text.h"
#include "api/message_fields.h"
#include "api/tool_fields.h"

namespace trellis {
namespace {

constexpr size_t kCompletionMaxTokens = 16;
constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                    "assistant", "tool",      "function"};

// --- Messages ---

void ReadContentPart(FieldReader& reader, const Json& part, const std::string& param,
                     size_t messages, std::vector<std::string>* out,
                     std::vector<CacheBreakpoint>* breakpoints) {
  if (!part.is_object()) return reader.FailType(param, "an object", part);
  FieldReader inner(part, param);
  std::string type, text;
  inner.String("type", &type);
  if (inner.ok() && type != "text" && type != "refusal") {
    const std::string type_param = inner.ParamOf("type");
    if (type.empty()) return reader.Fail(InvalidField(type_param, type_param + " is missing"));
    return reader.Fail(UnsupportedField(
        type_param, fmt::format("{} is \"{}\": only text can be read here; images, audio and files "
                                "are not supported",
                                type_param, Excerpt(type))));
  }
  const char* field = type == "refusal" ? "refusal" : "text";
  if (inner.ok() && inner.Find(field) == nullptr) {
    inner.Fail(InvalidField(inner.ParamOf(field), inner.ParamOf(field) + " is missing"));
  }
  inner.String(field, &text);
  ReadCacheControl(inner, messages, breakpoints);
  if (!inner.ok()) return reader.Fail(inner.error());
  out->push_back(std::move(text));
}

// A string, or an array of parts.
void ReadContent(FieldReader& reader, const Json& value, const std::string& param, size_t messages,
                 ChatMessage* out, std::vector<CacheBreakpoint>* breakpoints) {
  if (value.is_string()) {
    out->content = value.get<std::string>();
  } else if (value.is_array()) {
    for (size_t i = 0; i < value.size() && reader.ok(); i++) {
      ReadContentPart(reader, value[i], fmt::format("{}[{}]", param, i), messages,
                      &out->content_parts, breakpoints);
    }
  } else {
    reader.FailType(param, "a string or an array of parts", value);
  }
}

// `text`: the message as it is written. `messages`: how many there are with this one.
void ReadMessage(FieldReader& body, const Json& value, std::string_view text,
                 const std::string& param, size_t messages, ChatMessage* out,
                 std::vector<CacheBreakpoint>* breakpoints) {
  if (!value.is_object()) return body.FailType(param, "an object", value);
  FieldReader reader(value, param);
  ReadRole(reader, &out->role);
  ReadToolCalls(reader, text, &out->tool_calls_json);
  const std::string content_param = reader.ParamOf("content");
  if (const Json* content = reader.Find("content")) {
    ReadContent(reader, *content, content_param, messages, out, breakpoints);
  } else if (out->role != "assistant") {  // whose turn may be tool calls alone
    reader.Fail(InvalidField(content_param, content_param + " is missing"));
  }
  reader.String("tool_call_id", &out->tool_call_id);
  reader.String("name", &out->name);
  reader.String("reasoning_content", &out->reasoning_content);
  ReadCacheControl(reader, messages, breakpoints);
  if (!reader.ok()) body.Fail(reader.error());
}

void ReadMessages(FieldReader& reader, std::string_view body, std::vector<ChatMessage>* out,
                  std::vector<CacheBreakpoint>* breakpoints) {
  const Json* value = reader.Find("messages");
  if (value == nullptr) return reader.Fail(InvalidField("messages", "messages is missing"));
  if (!value->is_array()) return reader.FailType("messages", "an array of messages", *value);
  if (value->empty()) {
    return reader.Fail(InvalidField("messages", "messages must hold at least one message"));
  }
  out->resize(value->size());
  const std::vector<std::string_view> texts = RawElements(RawMember(body, "messages"));
  for (size_t i = 0; i < value->size() && reader.ok(); i++) {
    ReadMessage(reader, (*value)[i], texts[i], fmt::format("messages[{}]", i), i + 1, &(*out)[i],
                breakpoints);
  }
}

// A template writes tools before or into the first message, so that is as near as one can mark.
void ReadToolBreakpoints(FieldReader& reader, std::vector<CacheBreakpoint>* out) {
  const Json* tools = reader.Find("tools");
  if (tools == nullptr || !tools->is_array()) return;
  for (size_t i = 0; i < tools->size() && reader.ok(); i++) {
    FieldReader tool((*tools)[i], fmt::format("tools[{}]", i));
    ReadCacheControl(tool, 1, out);
    if (!tool.ok()) reader.Fail(tool.error());
  }
}

// --- Prompts ---

void ReadTokens(FieldReader& reader, const Json& value, const std::string& param,
                std::vector<TokenId>* out) {
  out->reserve(value.size());
  for (size_t i = 0; i < value.size() && reader.ok(); i++) {
    int64_t id = 0;
    // The name is only made where it is needed: a prompt may have 100,000 tokens.
    if (!value[i].is_number_unsigned() ||
        value[i].get<uint64_t>() > std::numeric_limits<TokenId>::max()) {
      reader.IntegerValue(value[i], fmt::format("{}[{}]", param, i), 0,
                          std::numeric_limits<TokenId>::max(), &id);
    } else {
      id = value[i].get<int64_t>();
    }
    out->push_back(static_cast<TokenId>(id));
  }
}

// Of the field `name`.
void ReadPrompts(FieldReader& reader, const char* name, std::vector<Prompt>* out) {
  const Json* value = reader.Find(name);
  if (value == nullptr) return reader.Fail(InvalidField(name, fmt::format("{} is missing", name)));
  if (value->is_string()) {
    out->emplace_back(value->get<std::string>());
    return;
  }
  if (!value->is_array()) {
    return reader.FailType(name, "a string, an array of token ids, or an array of these", *value);
  }
  if (value->empty()) return reader.Fail(InvalidField(name, fmt::format("{} is empty", name)));
  if (value->front().is_number()) {
    ReadTokens(reader, *value, name, &std::get<1>(out->emplace_back(std::vector<TokenId>())));
    return;
  }
  for (size_t i = 0; i < value->size() && reader.ok(); i++) {
    const Json& item = (*value)[i];
    const std::string param = fmt::format("{}[{}]", name, i);
    if (item.is_string()) {
      out->emplace_back(item.get<std::string>());
    } else if (item.is_array() && !item.empty()) {
      ReadTokens(reader, item, param, &std::get<1>(out->emplace_back(std::vector<TokenId>())));
    } else if (item.is_array()) {
      reader.Fail(InvalidField(param, param + " is empty"));
    } else {
      reader.FailType(param, "a string or an array of token ids", item);
    }
  }
}

}  // namespace

void ReadRole(FieldReader& reader, std::string* out) {
  const std::string param = reader.ParamOf("role");
  if (reader.Find("role") == nullptr) {
    return reader.Fail(InvalidField(param, param + " is missing"));
  }
  reader.String("role", out);
  if (reader.ok() && std::find(kRoles.begin(), kRoles.end(), *out) == kRoles.end()) {
    reader.Fail(InvalidField(param, fmt::format("{} is \"{}\"; it must be system, developer, user, "
                                                "assistant or tool",
                                                param, Excerpt(*out))));
  }
  // OpenAI's newer name; templates of open models know the older one.
  if (*out == "developer") *out = "system";
}

bool EndsInPart(const std::vector<ChatMessage>& messages) {
  return !messages.empty() && messages.back().role == "assistant" &&
         messages.back().tool_calls_json.empty();
}

namespace {

// OpenAI's reasoning_effort, of which a model here knows all or nothing, and llama-server's and
// vLLM's chat_template_kwargs.enable_thinking.
void ReadThinking(FieldReader& reader, ChatRequest* out) {
  std::string effort;
  reader.String("reasoning_effort", &effort);
  out->thinks = effort != "none";
  const Json* kwargs = reader.Find("chat_template_kwargs");
  if (kwargs == nullptr) return;
  if (!kwargs->is_object()) return reader.FailType("chat_template_kwargs", "an object", *kwargs);
  for (const auto& field : kwargs->items()) {
    if (field.key() == "enable_thinking") continue;
    const std::string param = "chat_template_kwargs." + Excerpt(field.key());
    reader.Fail(UnsupportedField(
        param, fmt::format("{} is not supported: only enable_thinking is", param)));
  }
  FieldReader inner(*kwargs, "chat_template_kwargs");
  inner.Bool("enable_thinking", &out->thinks);
  if (!inner.ok()) reader.Fail(inner.error());
}

// llama-server goes on from a last message of the assistant unless it is told otherwise; vLLM only
// if it is told to.
void ReadContinuation(FieldReader& reader, ChatRequest* out) {
  const bool can = EndsInPart(out->messages);
  bool starts_anew = reader.Find("continue_final_message") != nullptr || !can;
  reader.Bool("continue_final_message", &out->continues);
  if (out->continues) starts_anew = false;
  reader.Bool("add_generation_prompt", &starts_anew);
  if (out->continues && !can) {
    reader.Fail(InvalidField("continue_final_message",
                             "continue_final_message: the last message is not text of the "
                             "assistant"));
  } else if (out->continues && starts_anew) {
    reader.Fail(InvalidField("continue_final_message",
                             "continue_final_message and add_generation_prompt: an answer goes on "
                             "from a message, or begins one"));
  } else if (!starts_anew && !can) {
    reader.Fail(UnsupportedField("add_generation_prompt",
                                 "add_generation_prompt is false, and there is no message to go on "
                                 "from: an answer has to begin one"));
  }
  out->continues = !starts_anew;
}

}  // namespace

ApiResult<ChatRequest> ParseChatRequest(std::string_view body) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return json.error();
  FieldReader reader(json.value(), "");
  ChatRequest request;
  ReadMessages(reader, body, &request.messages, &request.generation.breakpoints);
  ReadThinking(reader, &request);
  ReadContinuation(reader, &request);
  ReadTools(reader, body, &request.tools_json, &request.tool_choice);
  ReadToolBreakpoints(reader, &request.generation.breakpoints);
  ReadGenerationFields(reader, body, LogprobsForm::kChat, &request.generation);
  if (!reader.ok()) return reader.error();
  return request;
}

namespace {

// OpenAI's "suffix": the answer belongs between the prompt and this.
void ReadSuffix(FieldReader& reader, CompletionRequest* request) {
  std::string suffix;
  reader.String("suffix", &suffix);
  if (suffix.empty() || !reader.ok()) return;
  const bool is_text =
      request->prompts.size() == 1 && std::holds_alternative<std::string>(request->prompts[0]);
  if (!is_text || request->echo) {
    return reader.Fail(InvalidField("suffix", "suffix needs one prompt, a text, and no echo"));
  }
  request->infill = {.prefix = std::move(std::get<std::string>(request->prompts[0])),
                     .suffix = std::move(suffix)};
}

// llama-server's: [{"filename", "text"}].
void ReadExtraFiles(FieldReader& reader, std::vector<InfillText::File>* out) {
  const Json* extra = reader.Find("input_extra");
  if (extra == nullptr) return;
  if (!extra->is_array()) return reader.FailType("input_extra", "an array of files", *extra);
  for (size_t i = 0; i < extra->size() && reader.ok(); i++) {
    const std::string param = fmt::format("input_extra[{}]", i);
    if (!(*extra)[i].is_object()) return reader.FailType(param, "an object", (*extra)[i]);
    FieldReader file((*extra)[i], param);
    InfillText::File& made = out->emplace_back(InfillText::File{.name = "tmp", .text = ""});
    file.String("filename", &made.name);
    file.String("text", &made.text);
    if (!file.ok()) reader.Fail(file.error());
  }
}

void ReadInfill(FieldReader& reader, CompletionRequest* request) {
  InfillText& infill = request->infill.emplace();
  for (const char* name : {"input_prefix", "input_suffix"}) {
    if (reader.Find(name) == nullptr)
      reader.Fail(InvalidField(name, fmt::format("{} is missing", name)));
  }
  reader.String("input_prefix", &infill.prefix);
  reader.String("input_suffix", &infill.suffix);
  reader.String("prompt", &infill.begun);
  ReadExtraFiles(reader, &infill.files);
}

enum class PromptForm { kPrompts, kInfill };

ApiResult<CompletionRequest> ParseCompletion(std::string_view body, CompletionRequest request,
                                             PromptForm form = PromptForm::kPrompts) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return json.error();
  FieldReader reader(json.value(), "");
  if (form == PromptForm::kInfill) {
    ReadInfill(reader, &request);
  } else {
    ReadPrompts(reader, "prompt", &request.prompts);
  }
  ReadGenerationFields(reader, body, LogprobsForm::kCompletion, &request.generation);
  reader.Bool("echo", &request.echo);
  if (const Json* tools = reader.Find("tools"); tools != nullptr && !tools->empty()) {
    reader.Fail(UnsupportedField("tools", "tools are for chats, not for text completions"));
  }
  if (request.echo && request.generation.sampling.num_logprobs >= 0) {
    reader.Fail(UnsupportedField(
        "echo", "echo with logprobs is not supported: there are no logprobs of the prompt"));
  }
  if (form == PromptForm::kPrompts) ReadSuffix(reader, &request);
  const size_t num_choices = request.prompts.size() * request.generation.best_of;
  if (num_choices > kMaxChoices) {
    reader.Fail(InvalidField(
        request.prompts.size() > kMaxChoices ? "prompt" : "n",
        fmt::format("{} prompts with {} answers each are more than the {} answers that one request "
                    "may have: send several requests",
                    request.prompts.size(), request.generation.best_of, kMaxChoices)));
  }
  if (!reader.ok()) return reader.error();
  return request;
}

}  // namespace

ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body) {
  CompletionRequest request;
  request.generation.max_tokens = kCompletionMaxTokens;
  return ParseCompletion(body, std::move(request));
}

namespace {

CompletionRequest LlamaDefaults() {
  CompletionRequest request;
  SamplingFields& sampling = request.generation.sampling;
  sampling.temperature = 0.8f;
  sampling.top_k = 40;
  sampling.top_p = 0.95f;
  sampling.min_p = 0.05f;
  return request;
}

}  // namespace

ApiResult<CompletionRequest> ParseLlamaCompletion(std::string_view body) {
  return ParseCompletion(body, LlamaDefaults());
}

ApiResult<CompletionRequest> ParseLlamaInfill(std::string_view body) {
  return ParseCompletion(body, LlamaDefaults(), PromptForm::kInfill);
}

ApiResult<EmbeddingsRequest> ParseEmbeddingsRequest(std::string_view body) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return json.error();
  FieldReader reader(json.value(), "");
  EmbeddingsRequest request;
  ReadPrompts(reader, "input", &request.inputs);
  ReadGenerationFields(reader, body, LogprobsForm::kCompletion, &request.generation);
  if (request.inputs.size() > kMaxInputs) {
    reader.Fail(InvalidField("input", fmt::format("input has {} texts; at most {} are taken",
                                                  request.inputs.size(), kMaxInputs)));
  }
  std::string format = "float";
  reader.String("encoding_format", &format);
  if (reader.ok() && format != "float" && format != "base64") {
    reader.Fail(InvalidField(
        "encoding_format",
        fmt::format("encoding_format is \"{}\"; it must be float or base64", Excerpt(format))));
  }
  request.base64 = format == "base64";
  if (reader.Find("dimensions") != nullptr) {
    reader.Fail(UnsupportedField("dimensions",
                                 "dimensions is not supported: an embedding has the model's size"));
  }
  if (!reader.ok()) return reader.error();
  return request;
}

ApiResult<TokenizeRequest> ParseTokenizeRequest(std::string_view body) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return json.error();
  FieldReader reader(json.value(), "");
  TokenizeRequest request;
  if (reader.ok() && reader.Find("content") == nullptr) {
    reader.Fail(InvalidField("content", "content is missing"));
  }
  reader.String("content", &request.content);
  reader.Bool("add_special", &request.add_special);
  reader.Bool("parse_special", &request.parse_special);
  reader.Bool("with_pieces", &request.with_pieces);
  if (!reader.ok()) return reader.error();
  return request;
}

ApiResult<std::vector<TokenId>> ParseDetokenizeRequest(std::string_view body) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return json.error();
  FieldReader reader(json.value(), "");
  std::vector<TokenId> tokens;
  const Json* value = reader.Find("tokens");
  if (value == nullptr) {
    reader.Fail(InvalidField("tokens", "tokens is missing"));
  } else if (!value->is_array()) {
    reader.FailType("tokens", "an array of token ids", *value);
  } else {
    ReadTokens(reader, *value, "tokens", &tokens);
  }
  if (!reader.ok()) return reader.error();
  return tokens;
}

}  // namespace trellis
