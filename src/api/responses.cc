#include "api/responses.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "api/answer_json.h"

namespace trellis {
namespace {

// --- Parts ---

OrderedJson BytesOf(const std::string& bytes) {
  OrderedJson array = OrderedJson::array();
  for (const char c : bytes) array.push_back(static_cast<unsigned char>(c));
  return array;
}

// A token that cannot come has -9999, as OpenAI's: JSON has no infinity.
float FiniteLogprob(float logprob) {
  return std::isfinite(logprob) ? logprob : -9999.0f;
}

OrderedJson ChatCandidate(const LogprobCandidate& candidate) {
  return {{"token", ValidUtf8(candidate.bytes)},
          {"logprob", FiniteLogprob(candidate.logprob)},
          {"bytes", BytesOf(candidate.bytes)}};
}

OrderedJson ChatLogprobs(const ChoiceText& choice) {
  if (!choice.has_logprobs) return nullptr;
  return {{"content", LogprobsJson(choice.logprobs)}, {"refusal", nullptr}};
}

// Half a UTF-8 sequence is written "bytes:\xe2\x80", as OpenAI's: different tokens stay different.
std::string CompletionToken(const std::string& bytes) {
  if (IsValidUtf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char c : bytes) text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return text;
}

OrderedJson CompletionLogprobs(const ChoiceText& choice) {
  if (!choice.has_logprobs) return nullptr;
  OrderedJson tokens = OrderedJson::array(), logprobs = OrderedJson::array(),
              tops = OrderedJson::array(), offsets = OrderedJson::array();
  for (const LogprobEntry& entry : choice.logprobs) {
    tokens.push_back(CompletionToken(entry.chosen.bytes));
    logprobs.push_back(FiniteLogprob(entry.chosen.logprob));
    OrderedJson top = OrderedJson::object();
    for (const LogprobCandidate& candidate : entry.top) {
      top[CompletionToken(candidate.bytes)] = FiniteLogprob(candidate.logprob);
    }
    tops.push_back(std::move(top));
    offsets.push_back(entry.text_offset);
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson FinishReasonOf(const ChoiceText& choice) {
  return choice.finish_reason == nullptr ? OrderedJson(nullptr) : OrderedJson(choice.finish_reason);
}

OrderedJson UsageJson(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

// a / b, and 0 where there is nothing to divide: JSON has no infinity.
double Ratio(double a, double b) {
  return b > 0 ? a / b : 0;
}

OrderedJson CacheReportJson(const CacheReport& report) {
  OrderedJson missed = OrderedJson::object();
  for (const auto& [cause, tokens] : report.missed) missed[cause] = tokens;
  OrderedJson json = {{"missed", std::move(missed)}};
  if (report.divergence) {
    json["diverged"] = {{"position", report.divergence->position},
                        {"prompt", report.divergence->prompt}};
    if (report.divergence->cached) json["diverged"]["cached"] = *report.divergence->cached;
  }
  return json;
}

OrderedJson HeadJson(const AnswerHead& head, const char* object) {
  return {{"id", head.id},
          {"object", object},
          {"created", head.created},
          {"model", head.model},
          {"system_fingerprint", head.fingerprint},
          {"seed", head.seed}};
}

const char* ChunkObject(AnswerForm form) {
  return form == AnswerForm::kChat ? "chat.completion.chunk" : "text_completion";
}

OrderedJson FunctionJson(const AnswerDelta::Call& call) {
  OrderedJson function = OrderedJson::object();
  if (!call.name.empty()) function["name"] = call.name;
  function["arguments"] = call.arguments;
  return function;
}

OrderedJson CallsJson(const std::vector<AnswerDelta::Call>& calls) {
  OrderedJson list = OrderedJson::array();
  for (const AnswerDelta::Call& call : calls)
    list.push_back({{"id", call.id}, {"type", "function"}, {"function", FunctionJson(call)}});
  return list;
}

OrderedJson WholeMessage(const ChoiceText& choice) {
  const bool has_content = !choice.text.empty() || choice.calls.empty();
  OrderedJson message = {{"role", "assistant"},
                         {"content", has_content ? OrderedJson(choice.text) : OrderedJson(nullptr)},
                         {"refusal", nullptr}};
  if (!choice.thoughts.empty()) message["reasoning_content"] = choice.thoughts;
  if (!choice.calls.empty()) message["tool_calls"] = CallsJson(choice.calls);
  return message;
}

// A call's first delta has its id and name; all have arguments.
OrderedJson DeltaOf(const ChoiceText& piece) {
  OrderedJson delta = OrderedJson::object();
  if (!piece.thoughts.empty()) delta["reasoning_content"] = piece.thoughts;
  if (!piece.text.empty()) delta["content"] = piece.text;
  for (const AnswerDelta::Call& call : piece.calls) {
    OrderedJson item = {{"index", call.index}};
    if (!call.id.empty()) {
      item["id"] = call.id;
      item["type"] = "function";
    }
    item["function"] = FunctionJson(call);
    delta["tool_calls"].push_back(std::move(item));
  }
  return delta;
}

OrderedJson WholeChoice(AnswerForm form, const ChoiceText& choice) {
  if (form == AnswerForm::kCompletion) {
    return {{"index", choice.index},
            {"text", choice.text},
            {"logprobs", CompletionLogprobs(choice)},
            {"finish_reason", FinishReasonOf(choice)}};
  }
  return {{"index", choice.index},
          {"message", WholeMessage(choice)},
          {"logprobs", ChatLogprobs(choice)},
          {"finish_reason", FinishReasonOf(choice)}};
}

OrderedJson ChunkWith(const AnswerHead& head, OrderedJson choice, UsageField usage) {
  OrderedJson chunk = HeadJson(head, ChunkObject(head.form));
  chunk["choices"] = OrderedJson::array({std::move(choice)});
  if (usage == UsageField::kNull) chunk["usage"] = nullptr;
  return chunk;
}

OrderedJson PieceChunk(const AnswerHead& head, const ChoiceText& piece, UsageField usage) {
  if (head.form == AnswerForm::kCompletion)
    return ChunkWith(head, WholeChoice(head.form, piece), usage);
  return ChunkWith(
      head,
      {{"index", piece.index},
       {"delta", DeltaOf(piece)},
       {"logprobs", piece.logprobs.empty() ? OrderedJson(nullptr) : ChatLogprobs(piece)},
       {"finish_reason", FinishReasonOf(piece)}},
      usage);
}

}  // namespace

OrderedJson LogprobsJson(const std::vector<LogprobEntry>& entries) {
  OrderedJson list = OrderedJson::array();
  for (const LogprobEntry& entry : entries) {
    OrderedJson item = ChatCandidate(entry.chosen);
    OrderedJson top = OrderedJson::array();
    for (const LogprobCandidate& candidate : entry.top) top.push_back(ChatCandidate(candidate));
    item["top_logprobs"] = std::move(top);
    list.push_back(std::move(item));
  }
  return list;
}

OrderedJson TimingsJson(const Timings& t) {
  const auto prompt = static_cast<double>(t.computed_tokens);
  const auto predicted = static_cast<double>(t.predicted_tokens);
  OrderedJson json = {{"cache_n", t.cached_tokens},
                      {"prompt_n", t.computed_tokens},
                      {"prompt_ms", t.prompt_ms},
                      {"prompt_per_token_ms", Ratio(t.prompt_ms, prompt)},
                      {"prompt_per_second", Ratio(prompt * 1e3, t.prompt_ms)},
                      {"predicted_n", t.predicted_tokens},
                      {"predicted_ms", t.predicted_ms},
                      {"predicted_per_token_ms", Ratio(t.predicted_ms, predicted)},
                      {"predicted_per_second", Ratio(predicted * 1e3, t.predicted_ms)},
                      {"queued_ms", t.queued_ms}};
  if (t.pinned_tokens) json["pinned_n"] = *t.pinned_tokens;
  if (t.cache_report) json["cache_report"] = CacheReportJson(*t.cache_report);
  return json;
}

OrderedJson ProgressJson(const PromptProgressFields& progress) {
  return {{"total", progress.total},
          {"cache", progress.cached},
          {"processed", progress.done},
          {"time_ms", progress.ms}};
}

void Timings::Add(const Timings& other) {
  cached_tokens += other.cached_tokens;
  computed_tokens += other.computed_tokens;
  predicted_tokens += other.predicted_tokens;
  queued_ms = std::max(queued_ms, other.queued_ms);
  prompt_ms = std::max(prompt_ms, other.prompt_ms);
  predicted_ms = std::max(predicted_ms, other.predicted_ms);
}

std::string AnswerJson(const AnswerHead& head, const std::vector<ChoiceText>& choices,
                       const Usage& usage, const Timings& timings) {
  OrderedJson answer =
      HeadJson(head, head.form == AnswerForm::kChat ? "chat.completion" : "text_completion");
  OrderedJson list = OrderedJson::array();
  for (const ChoiceText& choice : choices) list.push_back(WholeChoice(head.form, choice));
  answer["choices"] = std::move(list);
  answer["usage"] = UsageJson(usage);
  answer["timings"] = TimingsJson(timings);
  return ToText(answer);
}

std::string ToolCallsJson(const std::vector<AnswerDelta::Call>& calls) {
  std::vector<AnswerDelta::Call> whole;
  for (const AnswerDelta::Call& call : calls) {
    if (Json::accept(call.arguments)) whole.push_back(call);
  }
  return whole.empty() ? "" : ToText(CallsJson(whole));
}

std::string RoleChunk(const AnswerHead& head, size_t choice, UsageField usage) {
  return ToText(ChunkWith(head,
                          {{"index", choice},
                           {"delta", {{"role", "assistant"}, {"content", ""}}},
                           {"logprobs", nullptr},
                           {"finish_reason", nullptr}},
                          usage));
}

std::string ProgressChunk(const AnswerHead& head, size_t choice, UsageField usage,
                          const PromptProgressFields& progress) {
  OrderedJson chunk = PieceChunk(head, {.index = choice}, usage);
  chunk["prompt_progress"] = ProgressJson(progress);
  return ToText(chunk);
}

std::string TextChunk(const AnswerHead& head, const ChoiceText& piece, UsageField usage,
                      const Timings* timings) {
  OrderedJson chunk = PieceChunk(head, piece, usage);
  if (timings != nullptr) chunk["timings"] = TimingsJson(*timings);
  return ToText(chunk);
}

std::string UsageChunk(const AnswerHead& head, const Usage& usage, const Timings& timings) {
  OrderedJson chunk = HeadJson(head, ChunkObject(head.form));
  chunk["choices"] = OrderedJson::array();
  chunk["usage"] = UsageJson(usage);
  chunk["timings"] = TimingsJson(timings);
  return ToText(chunk);
}

std::string WarmJson(const WarmResult& result) {
  OrderedJson json = {{"object", result.is_pin ? "cache.pin" : "cache.warm"},
                      {"prompt_tokens", result.usage.prompt_tokens},
                      {"cached_tokens", result.usage.cached_tokens},
                      {"computed_tokens", result.computed_tokens},
                      {"pinned_tokens", result.pinned_tokens}};
  OrderedJson& pins = json["pins"] = OrderedJson::array();
  for (const WarmResult::Pin& pin : result.pins) {
    pins.push_back({{"pin", fmt::format("pin-{}", pin.id)},
                    {"tokens", pin.num_tokens},
                    {"expires_at", pin.expires_at}});
  }
  return ToText(json);
}

namespace {

// Of the bytes of `values`, little-endian; RFC 4648.
std::string Base64(const std::vector<float>& values) {
  static_assert(std::endian::native == std::endian::little);
  constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  std::string text;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    for (size_t j = 0; j < 3; j++)
      group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; j++)
      text += i + j <= bytes.size() ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace

std::string EmbeddingsJson(const AnswerHead& head,
                           const std::vector<std::vector<float>>& embeddings, const Usage& usage,
                           bool base64) {
  OrderedJson data = OrderedJson::array();
  for (size_t i = 0; i < embeddings.size(); i++) {
    data.push_back(
        {{"object", "embedding"},
         {"index", i},
         {"embedding", base64 ? OrderedJson(Base64(embeddings[i])) : OrderedJson(embeddings[i])}});
  }
  return ToText(
      {{"object", "list"},
       {"data", std::move(data)},
       {"model", head.model},
       {"usage", {{"prompt_tokens", usage.prompt_tokens}, {"total_tokens", usage.prompt_tokens}}}});
}

std::string LlamaEmbeddingsJson(const std::vector<std::vector<float>>& embeddings) {
  OrderedJson list = OrderedJson::array();
  for (const std::vector<float>& embedding : embeddings)
    list.push_back({{"index", list.size()}, {"embedding", OrderedJson::array({embedding})}});
  return ToText(list);
}

std::string OllamaEmbeddingJson(const std::vector<float>& embedding) {
  return ToText({{"embedding", embedding}});
}

std::string OllamaEmbeddingsJson(const AnswerHead& head,
                                 const std::vector<std::vector<float>>& embeddings,
                                 const Usage& usage, const Timings& timings) {
  return ToText(
      {{"model", head.model},
       {"embeddings", embeddings},
       {"total_duration", static_cast<int64_t>((timings.queued_ms + timings.prompt_ms) * 1e6)},
       {"load_duration", 0},
       {"prompt_eval_count", usage.prompt_tokens}});
}

std::string TokenizeJson(const std::vector<TokenId>& tokens) {
  return ToText({{"tokens", tokens}});
}

std::string TokenizeWithPiecesJson(const std::vector<TokenPiece>& tokens) {
  OrderedJson list = OrderedJson::array();
  for (const TokenPiece& token : tokens) {
    // Half a UTF-8 sequence is given as its bytes, as llama-server's.
    OrderedJson piece = IsValidUtf8(token.bytes) ? OrderedJson(token.bytes) : BytesOf(token.bytes);
    list.push_back({{"id", token.id}, {"piece", std::move(piece)}});
  }
  return ToText({{"tokens", std::move(list)}});
}

std::string QuotedJson(const std::string& text) {
  return ToText(text);
}

std::string DetokenizeJson(const std::string& text) {
  return ToText({{"content", text}});
}

}  // namespace trellis
