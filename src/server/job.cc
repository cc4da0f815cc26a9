#include "server/job.h"

#include <fmt/format.h>

#include <chrono>
#include <random>

#include "base/common_prefix.h"

namespace trellis {
namespace {

std::string RandomId(const char* prefix) {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{}{:016x}", prefix, random());
}

ApiResult<Job> StartJob(const Service& service, GenerationFields fields, AnswerForm form) {
  if (!fields.model.empty() && fields.model != service.model_name) {
    return ModelNotFound(fields.model, service.model_name);
  }
  for (const auto& [token, bias] : fields.sampling.logit_bias) {
    if (static_cast<size_t>(token) < service.tokenizer->vocab_size()) continue;
    return InvalidField("logit_bias",
                        fmt::format("logit_bias: token {} is not in the vocabulary", token));
  }
  Job job;
  job.head.form = form;
  job.head.id = RandomId(form == AnswerForm::kChat ? "chatcmpl-" : "cmpl-");
  job.head.created = std::chrono::duration_cast<std::chrono::seconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  job.head.model = service.model_name;
  job.head.fingerprint = service.fingerprint;
  job.head.seed = fields.sampling.seed.value_or(std::random_device{}());
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
  const Result<ChatPrompt> alone = service.chat_template->Render(first, request.tools_json);
  // A template may refuse a chat that ends there: then it is kept whole.
  return alone.ok() ? CommonPrefix(alone->tokens, prompt) : prompt.size();
}

ApiResult<Job> ChatJob(const std::string& body, const Service& service) {
  ApiResult<ChatRequest> request = ParseChatRequest(body);
  if (!request.ok()) return request.error();
  // A message costs a token at least.
  const std::vector<ChatMessage>& messages = request.value().messages;
  size_t num_bytes = messages.size() * service.tokenizer->longest_piece();
  for (const ChatMessage& message : messages) num_bytes += message.content.size();
  if (const auto error = ErrorOfLength(num_bytes, service, "messages")) return *error;
  ApiResult<Job> job = StartJob(service, std::move(request.value().generation), AnswerForm::kChat);
  if (!job.ok()) return job;
  Result<ChatPrompt> prompt =
      service.chat_template->Render(request.value().messages, request.value().tools_json);
  if (!prompt.ok()) return ErrorFromStatus(prompt.status(), "messages");
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

ApiResult<Job> CompletionJob(const std::string& body, const Service& service) {
  ApiResult<CompletionRequest> request = ParseCompletionRequest(body);
  if (!request.ok()) return request.error();
  ApiResult<Job> job =
      StartJob(service, std::move(request.value().generation), AnswerForm::kCompletion);
  if (!job.ok()) return job;
  std::vector<Prompt>& prompts = request.value().prompts;
  for (Prompt& prompt : prompts) {
    const std::string param =
        prompts.size() == 1 ? "prompt" : fmt::format("prompt[{}]", &prompt - prompts.data());
    std::string echo;
    std::vector<TokenId> tokens;
    if (auto* text = std::get_if<std::string>(&prompt)) {
      if (const auto error = ErrorOfLength(text->size(), service, param)) return *error;
      tokens = service.tokenizer->Encode(*text, AddSpecial::kByVocabulary, SpecialTokens::kParse);
      echo = std::move(*text);
    } else {
      tokens = std::move(std::get<std::vector<TokenId>>(prompt));
    }
    if (tokens.empty()) return InvalidField(param, "the prompt is empty");
    for (TokenId token : tokens) {
      if (token < 0 || static_cast<size_t>(token) >= service.tokenizer->vocab_size()) {
        return InvalidField(param, fmt::format("token {} is not in the vocabulary", token));
      }
    }
    if (request.value().echo && echo.empty()) {
      echo = service.tokenizer->Decode(tokens, SpecialTokens::kParse);
    }
    JobPrompt& made = job.value().prompts.emplace_back();
    for (const CacheBreakpoint& breakpoint : job.value().fields.breakpoints) {
      made.retentions.push_back({tokens.size(), breakpoint.lifetime});
    }
    made.tokens = std::move(tokens);
    if (request.value().echo) made.echo = std::move(echo);
  }
  return job;
}

}  // namespace

ApiResult<Job> MakeJob(std::string_view path, const std::string& body, const Service& service) {
  if (path == "/v1/chat/completions") return ChatJob(body, service);
  if (path == "/v1/completions") return CompletionJob(body, service);
  ApiResult<PinFields> pin = ParsePinFields(body);
  if (!pin.ok()) return pin.error();
  ApiResult<Job> made = pin.value().is_chat ? ChatJob(body, service) : CompletionJob(body, service);
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

}  // namespace trellis
