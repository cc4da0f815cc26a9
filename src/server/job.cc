#include "server/job.h"

#include <fmt/format.h>

#include <chrono>
#include <random>

#include "api/anthropic_requests.h"
#include "api/ollama_requests.h"
#include "api/openai_responses.h"
#include "base/common_prefix.h"
#include "server/request_id.h"

namespace trellis {
namespace {

ApiResult<Job> StartJob(const Service& service, GenerationFields fields, AnswerForm form) {
  for (const auto& [token, bias] : fields.sampling.logit_bias) {
    if (static_cast<size_t>(token) < service.tokenizer->vocab_size()) continue;
    return InvalidField("logit_bias",
                        fmt::format("logit_bias: token {} is not in the vocabulary", token));
  }
  Job job;
  const TextFormat& format = fields.format;
  // Of a chat the template knows what may surround a JSON text.
  if (!format.grammar.empty() || (!format.json_schema.empty() && form != AnswerForm::kChat)) {
    auto grammar = format.grammar.empty()
                       ? Grammar::OfJsonSchema(*service.tokenizer, format.json_schema)
                       : Grammar::Parse(*service.tokenizer, {format.grammar});
    if (!grammar.ok()) return ErrorFromStatus(grammar.status(), format.param);
    job.grammar = std::move(grammar).value();
  }
  job.head.form = form;
  job.head.id = RandomId(form == AnswerForm::kChat ? "chatcmpl-" : "cmpl-");
  job.head.created = std::chrono::duration_cast<std::chrono::seconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  job.head.model = service.model_name;
  job.head.fingerprint = service.fingerprint;
  job.head.seed = fields.sampling.seed.value_or(std::random_device{}());
  job.writer = NewOpenAiWriter(job.head, {.include_usage = fields.include_usage});
  job.fields = std::move(fields);
  return job;
}

// What cannot fit is refused before time and memory go into templates and tokens.
std::optional<ApiError> ErrorOfLength(size_t num_bytes, const Service& service,
                                      const std::string& field) {
  const size_t at_least = num_bytes / service.tokenizer->longest_piece();
  const size_t context_size = service.engine->context_size();
  if (at_least <= context_size) return std::nullopt;
  return ErrorFromStatus(
      Status(StatusCode::kTooLarge, fmt::format("{} has at least {} tokens; the context holds {}",
                                                field, at_least, context_size)),
      field);
}

// How many tokens of the prompt are its first messages, and what the template writes before them:
// those that it has in common with a chat of these alone.
size_t TokensUpTo(size_t num_messages, const ChatRequest& request,
                  const std::vector<TokenId>& prompt, const Service& service) {
  const std::vector<ChatMessage>& all = request.messages;
  if (num_messages >= all.size()) return prompt.size();
  const std::vector<ChatMessage> first(all.begin(),
                                       all.begin() + static_cast<ptrdiff_t>(num_messages));
  const Result<ChatPrompt> alone = service.chat_template->Render(
      first, {.tools_json = request.tools_json, .calls = ChatOptions::Calls::kNone});
  // A template may refuse a chat that ends there: then it is kept whole.
  return alone.ok() ? CommonPrefix(alone->tokens, prompt) : prompt.size();
}

ChatOptions OptionsOf(const ChatRequest& request, const TextFormat& format) {
  ChatOptions options{.tools_json = request.tools_json,
                      .only_tool = request.tool_choice.name,
                      .parallel_calls = request.tool_choice.parallel,
                      .json_schema = format.json_schema,
                      .thinks = request.thinks,
                      .continues = request.continues};
  if (request.tool_choice.mode == ToolChoice::Mode::kRequired)
    options.calls = ChatOptions::Calls::kMust;
  // Who brings a grammar says all of what the answer may be.
  if (request.tool_choice.mode == ToolChoice::Mode::kNone || !format.grammar.empty())
    options.calls = ChatOptions::Calls::kNone;
  return options;
}

ApiResult<Job> ChatJob(ApiResult<ChatRequest> request, const Service& service) {
  if (!request.ok()) return request.error();
  // A message costs a token at least.
  const std::vector<ChatMessage>& messages = request.value().messages;
  size_t num_bytes = messages.size() * service.tokenizer->longest_piece();
  for (const ChatMessage& message : messages) {
    num_bytes += message.content.size() + message.tool_calls_json.size();
    for (const std::string& part : message.content_parts) num_bytes += part.size();
  }
  if (const auto error = ErrorOfLength(num_bytes, service, "messages")) return *error;
  ApiResult<Job> job = StartJob(service, std::move(request.value().generation), AnswerForm::kChat);
  if (!job.ok()) return job;
  const TextFormat& format = job.value().fields.format;
  if (request.value().tool_choice.mode == ToolChoice::Mode::kRequired && !format.param.empty()) {
    return InvalidField("tool_choice", fmt::format("tool_choice requires a call, and {} something "
                                                   "else: only one of them can be",
                                                   format.param));
  }
  if (request.value().continues &&
      (request.value().tool_choice.mode == ToolChoice::Mode::kRequired || !format.param.empty())) {
    return InvalidField("messages",
                        "the last message is the assistant's, and what goes on from it "
                        "cannot be held to a format or a call: leave it out");
  }
  const ChatOptions options = OptionsOf(request.value(), format);
  Result<ChatPrompt> prompt = service.chat_template->Render(request.value().messages, options);
  if (!prompt.ok()) {
    const bool is_of_form = prompt.status().code() == StatusCode::kUnsupported;
    return ErrorFromStatus(prompt.status(), !is_of_form            ? "messages"
                                            : format.param.empty() ? "tools"
                                                                   : format.param);
  }
  job.value().answer_format = std::move(prompt->format);
  const AnswerFormat& answer = *job.value().answer_format;
  if (job.value().grammar == nullptr) job.value().grammar = answer.grammar;
  job.value().template_stops = answer.stops;
  // A template that drops thoughts keeps them while tools are called.
  if (request.value().tools_json.empty()) {
    job.value().dropped_if_begins = service.chat_template->BeginningOfDropped(prompt->text);
  }
  JobPrompt& made = job.value().prompts.emplace_back();
  made.tokens = std::move(prompt->tokens);
  for (const CacheBreakpoint& breakpoint : job.value().fields.breakpoints) {
    made.retentions.push_back(
        {TokensUpTo(breakpoint.num_messages, request.value(), made.tokens, service),
         breakpoint.lifetime});
  }
  return job;
}

// One prompt of a text completion, which clients call `param`.
ApiResult<JobPrompt> MakePrompt(Prompt prompt, const std::string& param, bool echo,
                                const Service& service) {
  JobPrompt made;
  std::string said;
  if (auto* text = std::get_if<std::string>(&prompt)) {
    if (const auto error = ErrorOfLength(text->size(), service, param)) return *error;
    made.tokens =
        service.tokenizer->Encode(*text, AddSpecial::kByVocabulary, SpecialTokens::kParse);
    said = std::move(*text);
  } else {
    made.tokens = std::move(std::get<std::vector<TokenId>>(prompt));
  }
  if (made.tokens.empty()) return InvalidField(param, "the prompt is empty");
  for (TokenId token : made.tokens) {
    if (token < 0 || static_cast<size_t>(token) >= service.tokenizer->vocab_size()) {
      return InvalidField(param, fmt::format("token {} is not in the vocabulary", token));
    }
  }
  if (echo) {
    made.echo = !said.empty() ? std::move(said)
                              : service.tokenizer->Decode(made.tokens, SpecialTokens::kParse);
  }
  return made;
}

ApiResult<JobPrompt> MakeInfillPrompt(const InfillText& text, const Service& service) {
  size_t num_bytes = text.prefix.size() + text.suffix.size() + text.begun.size();
  for (const InfillText::File& file : text.files) num_bytes += file.text.size();
  if (const auto error = ErrorOfLength(num_bytes, service, "prompt")) return *error;
  Result<std::vector<TokenId>> tokens = InfillPrompt(*service.tokenizer, text);
  if (!tokens.ok()) return ErrorFromStatus(tokens.status(), "suffix");
  return JobPrompt{.tokens = std::move(*tokens)};
}

ApiResult<Job> CompletionJob(ApiResult<CompletionRequest> parsed, const Service& service) {
  if (!parsed.ok()) return parsed.error();
  CompletionRequest& request = parsed.value();
  ApiResult<Job> job = StartJob(service, std::move(request.generation), AnswerForm::kCompletion);
  if (!job.ok()) return job;
  const auto add = [&](ApiResult<JobPrompt> made) -> std::optional<ApiError> {
    if (!made.ok()) return made.error();
    for (const CacheBreakpoint& breakpoint : job.value().fields.breakpoints)
      made.value().retentions.push_back({made.value().tokens.size(), breakpoint.lifetime});
    job.value().prompts.push_back(std::move(made.value()));
    return std::nullopt;
  };
  if (request.infill) {
    if (auto error = add(MakeInfillPrompt(*request.infill, service))) return *error;
    return job;
  }
  const bool is_one = request.prompts.size() == 1;
  for (size_t i = 0; i < request.prompts.size(); i++) {
    const std::string param = is_one ? "prompt" : fmt::format("prompt[{}]", i);
    auto made = MakePrompt(std::move(request.prompts[i]), param, request.echo, service);
    if (auto error = add(std::move(made))) return *error;
  }
  return job;
}

ApiResult<Job> EmbeddingsJob(ApiResult<EmbeddingsRequest> parsed, EmbeddingsForm form,
                             const Service& service) {
  if (!parsed.ok()) return parsed.error();
  EmbeddingsRequest& request = parsed.value();
  ApiResult<Job> made = StartJob(service, std::move(request.generation), AnswerForm::kCompletion);
  if (!made.ok()) return made;
  Job& job = made.value();
  job.purpose = Job::Purpose::kEmbed;
  const bool in_base64 = request.base64 && form == EmbeddingsForm::kFloats;
  job.embeddings_form = in_base64 ? EmbeddingsForm::kBase64 : form;
  job.fields.stream = false;
  job.fields.max_tokens = 1;
  job.fields.num_choices = job.fields.best_of = 1;
  // For the mean all of a text is run.
  if (service.model->spec().pooling == Pooling::kMean) job.fields.cache_prompt = false;
  const bool is_one = request.inputs.size() == 1;
  for (size_t i = 0; i < request.inputs.size(); i++) {
    const std::string param = is_one ? "input" : fmt::format("input[{}]", i);
    auto prompt = MakePrompt(std::move(request.inputs[i]), param, /*echo=*/false, service);
    if (!prompt.ok()) return prompt.error();
    job.prompts.push_back(std::move(prompt.value()));
  }
  return made;
}

ApiResult<Job> OllamaChatJob(ApiResult<ChatRequest> request, OllamaForm form,
                             const Service& service) {
  const bool only_loads = request.ok() && request.value().messages.empty();
  ApiResult<Job> made =
      only_loads ? StartJob(service, std::move(request.value().generation), AnswerForm::kChat)
                 : ChatJob(std::move(request), service);
  if (made.ok()) made.value().writer = NewOllamaWriter(made.value().head, form);
  return made;
}

ApiResult<Job> OllamaGenerateJob(const std::string& body, const Service& service) {
  auto either = ParseOllamaGenerate(body);
  if (!either.ok()) return either.error();
  if (auto* chat = std::get_if<ChatRequest>(&either.value()))
    return OllamaChatJob(std::move(*chat), OllamaForm::kGenerate, service);
  auto made = CompletionJob(std::move(std::get<CompletionRequest>(either.value())), service);
  if (made.ok()) made.value().writer = NewOllamaWriter(made.value().head, OllamaForm::kGenerate);
  return made;
}

ApiResult<Job> MessagesJob(const std::string& body, const Service& service) {
  ApiResult<Job> made = ChatJob(ParseMessagesRequest(body), service);
  if (!made.ok()) return made;
  Job& job = made.value();
  job.head.id = RandomId("msg_");
  size_t cached_to = 0;
  for (const Retention& retention : job.prompts.front().retentions)
    cached_to = std::max(cached_to, retention.num_tokens);
  job.writer = NewAnthropicWriter(job.head, cached_to);
  return made;
}

ApiResult<Job> ResponsesJob(const std::string& body, const std::string& owner,
                            const Service& service, ResponseStore& responses) {
  ApiResult<ResponsesRequest> parsed = ParseResponsesRequest(body);
  if (!parsed.ok()) return parsed.error();
  ResponsesRequest& request = parsed.value();
  std::vector<ChatMessage>& messages = request.chat.messages;
  if (!request.previous_id.empty()) {
    auto before = responses.Find(owner, request.previous_id);
    if (!before) {
      ApiError error = InvalidField(
          "previous_response_id",
          fmt::format("there is no response \"{}\", or no longer: send all of the input",
                      Excerpt(request.previous_id)));
      error.code = "previous_response_not_found";
      return error;
    }
    messages.insert(messages.begin(), std::make_move_iterator(before->begin()),
                    std::make_move_iterator(before->end()));
  }
  std::optional<std::vector<ChatMessage>> kept;
  if (request.is_kept) kept = messages;
  if (!request.instructions.empty()) {
    ChatMessage system;
    system.role = "system";
    system.content = std::move(request.instructions);
    messages.insert(messages.begin(), std::move(system));
  }
  ApiResult<Job> made = ChatJob(std::move(request.chat), service);
  if (!made.ok()) return made;
  Job& job = made.value();
  job.head.id = RandomId("resp_") + RandomId("");  // who knows it may go on from it
  job.kept_chat = std::move(kept);
  job.writer = NewResponsesWriter(job.head, request.repeated);
  return made;
}

ApiResult<Job> PinJob(std::string_view path, const std::string& body, const Service& service) {
  ApiResult<PinFields> pin = ParsePinFields(body);
  if (!pin.ok()) return pin.error();
  ApiResult<Job> made = pin.value().is_chat ? ChatJob(ParseChatRequest(body), service)
                                            : CompletionJob(ParseCompletionRequest(body), service);
  if (!made.ok()) return made;
  Job& job = made.value();
  job.purpose = path == "/v1/cache/pin" ? Job::Purpose::kPin : Job::Purpose::kWarm;
  if (job.purpose == Job::Purpose::kWarm && pin.value().lifetime) {
    return InvalidField("ttl", "ttl is for /v1/cache/pin; warming alone keeps nothing");
  }
  job.fields.stream = false;
  job.fields.max_tokens = 1;  // the engine knows no prompt without an answer
  job.fields.num_choices = job.fields.best_of = 1;
  if (job.purpose == Job::Purpose::kPin) {
    std::chrono::seconds lifetime = kDefaultLifetime;
    for (const CacheBreakpoint& mark : job.fields.breakpoints)
      lifetime = std::max(lifetime, mark.lifetime);
    lifetime = pin.value().lifetime.value_or(lifetime);
    for (JobPrompt& prompt : job.prompts) prompt.retentions = {{prompt.tokens.size(), lifetime}};
  }
  return made;
}

}  // namespace

ApiResult<std::string> ChatPromptText(const std::string& body, const Service& service) {
  ApiResult<ChatRequest> request = ParseChatRequest(body);
  if (!request.ok()) return request.error();
  const Result<ChatPrompt> prompt = service.chat_template->Render(
      request.value().messages, {.tools_json = request.value().tools_json,
                                 .calls = ChatOptions::Calls::kNone,
                                 .thinks = request.value().thinks,
                                 .continues = request.value().continues});
  if (!prompt.ok()) return ErrorFromStatus(prompt.status(), "messages");
  return prompt->text;
}

ApiResult<size_t> CountPromptTokens(const std::string& body, const Service& service) {
  ApiResult<Job> job = ChatJob(ParseCountTokensRequest(body), service);
  if (!job.ok()) return job.error();
  return job.value().prompts.front().tokens.size();
}

std::unique_ptr<AnswerWriter> WriterFor(std::string_view path) {
  AnswerHead head{.form = AnswerForm::kChat, .id = {}, .created = 0, .model = {}};
  if (path == "/v1/messages") return NewAnthropicWriter(head, 0);
  if (path == "/v1/responses") {
    head.id = RandomId("resp_");
    return NewResponsesWriter(head, "{}");
  }
  if (path == "/api/chat") return NewOllamaWriter(head, OllamaForm::kChat);
  if (path == "/api/generate") return NewOllamaWriter(head, OllamaForm::kGenerate);
  if (path == "/completion" || path == "/completions" || path == "/infill")
    return NewLlamaWriter(head);
  if (path == "/v1/chat/completions" || path == "/v1/completions") return NewOpenAiWriter(head, {});
  return nullptr;
}

ApiResult<Job> MakeJob(std::string_view path, const std::string& body, const std::string& owner,
                       const Service& service, ResponseStore& responses) {
  if (path == "/v1/chat/completions") return ChatJob(ParseChatRequest(body), service);
  if (path == "/v1/messages") return MessagesJob(body, service);
  if (path == "/v1/responses") return ResponsesJob(body, owner, service, responses);
  if (path == "/v1/completions") return CompletionJob(ParseCompletionRequest(body), service);
  if (path == "/completion" || path == "/completions" || path == "/infill") {
    auto parsed = path == "/infill" ? ParseLlamaInfill(body) : ParseLlamaCompletion(body);
    auto made = CompletionJob(std::move(parsed), service);
    if (made.ok()) made.value().writer = NewLlamaWriter(made.value().head);
    return made;
  }
  if (path == "/api/chat") return OllamaChatJob(ParseOllamaChat(body), OllamaForm::kChat, service);
  if (path == "/v1/embeddings")
    return EmbeddingsJob(ParseEmbeddingsRequest(body), EmbeddingsForm::kFloats, service);
  if (path == "/api/embed")
    return EmbeddingsJob(ParseOllamaEmbed(body), EmbeddingsForm::kOllama, service);
  if (path == "/api/generate") return OllamaGenerateJob(body, service);
  return PinJob(path, body, service);
}

}  // namespace trellis
