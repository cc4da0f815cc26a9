#include "api/ollama_requests.h"

#include <fmt/format.h>

#include <limits>
#include <utility>

#include "api/field_reader.h"
#include "api/format_fields.h"
#include "api/generation_fields.h"
#include "api/message_fields.h"
#include "api/tool_fields.h"

namespace trellis {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();

// `options`: Ollama's names for what others have in the body. Those of its engine (num_ctx,
// num_thread, ...) have no meaning here: nobody tunes it.
void ReadOptions(FieldReader& body, GenerationFields* out) {
  const Json* value = body.Find("options");
  if (value == nullptr) return;
  if (!value->is_object()) return body.FailType("options", "an object", *value);
  FieldReader options(*value, "options");
  ReadSampling(options, &out->sampling);
  ReadSeed(options, &out->sampling.seed);
  ReadStop(options, "stop", &out->stop);
  int64_t most = -1;
  options.Integer("num_predict", -2, kInt32Max, &most);
  out->max_tokens = most > 0 ? static_cast<size_t>(most) : 0;
  if (!options.ok()) body.Fail(options.error());
}

// "json", or a schema.
void ReadOllamaFormat(FieldReader& body, std::string_view text, TextFormat* out) {
  const Json* format = body.Find("format");
  if (format == nullptr || *format == "") return;
  if (*format == "json") {
    TakeAnyObject("format", out);
  } else {
    ReadSchema(body, "format", *format, RawMember(text, "format"), out);
  }
}

void ReadCommon(FieldReader& body, std::string_view text, GenerationFields* out) {
  // Ollama's own defaults, which its users know.
  out->sampling.temperature = 0.8f;
  out->sampling.top_k = 40;
  out->sampling.top_p = 0.9f;
  out->sampling.repetition_penalty = 1.1f;
  out->stream = true;
  body.Bool("stream", &out->stream);
  ReadOptions(body, out);
  ReadCacheUse(body, out);
  ReadOllamaFormat(body, text, &out->format);
}

// true, false, or how hard: a template knows yes and no.
bool ReadThink(FieldReader& body) {
  const Json* think = body.Find("think");
  if (think == nullptr) return true;
  if (think->is_string()) return true;
  bool thinks = true;
  body.Bool("think", &thinks);
  return thinks;
}

void RefuseImages(FieldReader& reader) {
  const Json* images = reader.Find("images");
  if (images == nullptr || (images->is_array() && images->empty())) return;
  reader.Fail(UnsupportedField(reader.ParamOf("images"),
                               reader.ParamOf("images") + ": this model reads text"));
}

void ReadMessages(FieldReader& body, std::string_view text, std::vector<ChatMessage>* out) {
  const Json* messages = body.Find("messages");
  if (messages == nullptr) return;
  if (!messages->is_array()) return body.FailType("messages", "an array of messages", *messages);
  const std::vector<std::string_view> texts = RawElements(RawMember(text, "messages"));
  for (size_t i = 0; i < messages->size() && body.ok(); i++) {
    const std::string param = fmt::format("messages[{}]", i);
    if (!(*messages)[i].is_object()) return body.FailType(param, "an object", (*messages)[i]);
    FieldReader message((*messages)[i], param);
    ChatMessage& made = out->emplace_back();
    ReadRole(message, &made.role);
    message.String("content", &made.content);
    message.String("thinking", &made.reasoning_content);
    message.String("tool_name", &made.name);
    message.String("tool_call_id", &made.tool_call_id);
    ReadToolCalls(message, texts[i], &made.tool_calls_json);
    RefuseImages(message);
    if (!message.ok()) body.Fail(message.error());
  }
}

}  // namespace

std::string WithoutLatest(std::string model) {
  constexpr std::string_view kLatest = ":latest";
  if (model.ends_with(kLatest)) model.resize(model.size() - kLatest.size());
  return model;
}

ApiResult<ChatRequest> ParseOllamaChat(std::string_view text) {
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  ChatRequest request;
  ReadMessages(body, text, &request.messages);
  ReadTools(body, text, &request.tools_json, &request.tool_choice);
  ReadCommon(body, text, &request.generation);
  request.thinks = ReadThink(body);
  request.continues = EndsInPart(request.messages);
  if (!body.ok()) return body.error();
  return request;
}

ApiResult<std::variant<ChatRequest, CompletionRequest>> ParseOllamaGenerate(std::string_view text) {
  using Either = std::variant<ChatRequest, CompletionRequest>;
  ApiResult<Json> json = ParseJson(text);
  if (!json.ok()) return json.error();
  FieldReader body(json.value(), "");
  std::string prompt, system, suffix, own_template;
  bool raw = false;
  body.String("prompt", &prompt);
  body.String("system", &system);
  body.String("suffix", &suffix);
  body.String("template", &own_template);
  body.Bool("raw", &raw);
  RefuseImages(body);
  if (!own_template.empty()) {
    body.Fail(UnsupportedField("template", "template: the model's own chat template is used"));
  }
  GenerationFields generation;
  ReadCommon(body, text, &generation);
  const bool thinks = ReadThink(body);
  if (!body.ok()) return body.error();
  if (raw || !suffix.empty()) {
    CompletionRequest request;
    request.generation = std::move(generation);
    if (suffix.empty()) {
      request.prompts.emplace_back(std::move(prompt));
    } else {
      request.infill = {.prefix = std::move(prompt), .suffix = std::move(suffix)};
    }
    return Either(std::move(request));
  }
  ChatRequest request;
  request.generation = std::move(generation);
  request.thinks = thinks;
  const auto add = [&](const char* role, std::string content) {
    ChatMessage& message = request.messages.emplace_back();
    message.role = role;
    message.content = std::move(content);
  };
  if (prompt.empty()) return Either(std::move(request));
  if (!system.empty()) add("system", std::move(system));
  add("user", std::move(prompt));
  return Either(std::move(request));
}

ApiResult<EmbeddingsRequest> ParseOllamaEmbed(std::string_view text) {
  return ParseEmbeddingsRequest(text);
}

}  // namespace trellis
