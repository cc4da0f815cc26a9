#include "api/generation_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <utility>

#include "api/cache_fields.h"
#include "api/format_fields.h"

namespace trellis {
namespace {

constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
// Each answer of a request has tables for each of them.
constexpr size_t kMaxStops = 32;
constexpr size_t kMaxStopBytes = 512;
constexpr size_t kMaxNameBytes = 256;  // stays in memory with what is kept under it
constexpr int64_t kMaxLogprobs = 20;
constexpr size_t kMaxBiases = 4096;

// --- Sampling ---

std::optional<TokenId> ParseTokenKey(std::string_view key) {
  TokenId id = 0;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  if (error != std::errc() || end != key.data() + key.size() || id < 0) return std::nullopt;
  return id;
}

void AddBias(FieldReader& reader, const std::string& param, TokenId id, const Json& value,
             SamplingFields* out) {
  if (value.is_boolean() && !value.get<bool>()) {
    out->logit_bias.emplace_back(id, -100.0f);
    return;
  }
  if (!value.is_number()) return reader.FailType(param, "a number, or false", value);
  const auto bias = value.get<double>();
  if (!(bias >= -100 && bias <= 100)) {
    return reader.Fail(
        InvalidField(param, fmt::format("{} must be between -100 and 100, not {}", param, bias)));
  }
  out->logit_bias.emplace_back(id, static_cast<float>(bias));
}

// {"15043": 1.5, ...} as OpenAI's, or [[15043, 1.5], ...] as llama-server's.
void ReadLogitBias(FieldReader& reader, SamplingFields* out) {
  const Json* value = reader.Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object() && !value->is_array()) {
    return reader.FailType("logit_bias", "an object of token ids and biases", *value);
  }
  if (value->size() > kMaxBiases) {
    return reader.Fail(InvalidField(
        "logit_bias",
        fmt::format("logit_bias has {} entries; at most {} are taken", value->size(), kMaxBiases)));
  }
  if (value->is_object()) {
    for (const auto& [key, bias] : value->items()) {
      const std::string param = fmt::format("logit_bias[\"{}\"]", Excerpt(key));
      const std::optional<TokenId> id = ParseTokenKey(key);
      if (!id) {
        return reader.Fail(InvalidField(param, param + ": the key must be a token id"));
      }
      AddBias(reader, param, *id, bias, out);
    }
    return;
  }
  for (size_t i = 0; i < value->size(); i++) {
    const Json& pair = (*value)[i];
    const std::string param = fmt::format("logit_bias[{}]", i);
    if (!pair.is_array() || pair.size() != 2) {
      return reader.FailType(param, "a pair [token id, bias]", pair);
    }
    int64_t id = 0;
    reader.IntegerValue(pair[0], param + "[0]", 0, kInt32Max, &id);
    AddBias(reader, param + "[1]", static_cast<TokenId>(id), pair[1], out);
  }
}

void ReadLogprobs(FieldReader& reader, LogprobsForm form, SamplingFields* out) {
  int64_t count = -1;
  if (form == LogprobsForm::kCompletion) {
    reader.Integer("logprobs", 0, kMaxLogprobs, &count);
  } else {
    bool wanted = false;
    reader.Bool("logprobs", &wanted);
    const bool has_top = reader.Find("top_logprobs") != nullptr;
    int64_t top = 0;
    reader.Integer("top_logprobs", 0, kMaxLogprobs, &top);
    if (has_top && top > 0 && !wanted) {
      reader.Fail(InvalidField("top_logprobs", "top_logprobs needs \"logprobs\": true beside it"));
    }
    if (wanted) count = top;
  }
  out->num_logprobs = static_cast<int32_t>(count);
}

// --- When it ends ---

// -1 asks for no limit, and 0 for the prompt alone, as llama-server's n_predict does. The newest
// name wins.
void ReadMaxTokens(FieldReader& reader, GenerationFields* out) {
  for (const char* name : {"n_predict", "max_tokens", "max_completion_tokens"}) {
    const Json* value = reader.Find(name);
    if (value == nullptr) continue;
    if (value->is_number() && *value == -1) {
      out->max_tokens = 0;
      out->only_prompt = false;
      continue;
    }
    int64_t count = 1;
    reader.IntegerValue(*value, name, 0, kInt32Max, &count);
    out->max_tokens = static_cast<size_t>(count);
    out->only_prompt = count == 0;
  }
}

void ReadStream(FieldReader& reader, GenerationFields* out) {
  reader.Bool("stream", &out->stream);
  const Json* options = reader.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object()) return reader.FailType("stream_options", "an object", *options);
  FieldReader inner(*options, "stream_options");
  inner.Bool("include_usage", &out->include_usage);
  if (!inner.ok()) return reader.Fail(inner.error());
  if (!out->stream) {
    reader.Fail(
        InvalidField("stream_options", "stream_options is only allowed with \"stream\": true"));
  }
}

// --- What this server does not do ---

// Fields that change the meaning of an answer, and the values that ask for nothing.
struct Unsupported {
  const char* name;
  const char* why;
  std::vector<Json> neutral;
};

const std::vector<Unsupported>& UnsupportedFields() {
  static const char kConstrained[] = "use response_format, json_schema or grammar";
  static const char kSampler[] = "this sampler is not available";
  static const char kTemplate[] = "the model's own chat template is always used";
  static const std::vector<Unsupported> fields = {
      {"functions", "use tools, which took their place", {Json::array()}},
      {"function_call", "use tool_choice, which took its place", {"none", "auto"}},
      {"guided_json", kConstrained, {}},
      {"guided_regex", kConstrained, {""}},
      {"guided_choice", kConstrained, {Json::array()}},
      {"guided_grammar", kConstrained, {""}},
      {"structured_outputs", kConstrained, {Json::object()}},
      {"modalities", "answers are text", {Json::array({"text"}), Json::array()}},
      {"audio", "answers are text", {}},
      {"web_search_options", "there is no web search here", {}},
      {"chat_template", kTemplate, {""}},
      {"mirostat", kSampler, {0}},
      {"mirostat_mode", kSampler, {0}},
      {"xtc_probability", kSampler, {0, 0.0}},
      {"dry_multiplier", kSampler, {0, 0.0}},
      {"dynatemp_range", kSampler, {0, 0.0}},
      {"top_n_sigma", kSampler, {-1, 0}},
      {"no_repeat_ngram_size", kSampler, {0}},
      {"length_penalty", kSampler, {1}},
      {"cfg_scale", kSampler, {1}},
      {"guidance_scale", kSampler, {1}},
      {"negative_prompt", kSampler, {""}},
      {"samplers", "the order of samplers is llama.cpp's default", {Json::array()}},
      {"bad_words", "use logit_bias with token ids", {Json::array()}},
      {"allowed_token_ids", "use logit_bias with token ids", {Json::array()}},
      {"logits_processors", "answers are sampled as they are", {Json::array()}},
      {"include_stop_str_in_output", "an answer ends before its stop string", {false}},
      {"skip_special_tokens", "special tokens are never shown", {true}},
      {"truncate_prompt_tokens", "a prompt is never cut", {-1}},
      {"n_probs", "use logprobs", {0}},
      {"t_max_predict_ms", "an answer has no time limit", {0}},
      {"use_beam_search", kSampler, {false}},
      {"min_tokens", "an answer ends where the model ends it", {0}},
      {"prompt_logprobs", "there are no logprobs of the prompt", {0}},
      {"stop_token_ids", "use stop with text", {Json::array()}},
      {"lora", "there are no adapters here", {Json::array()}},
      {"lora_request", "there are no adapters here", {Json::object()}},
  };
  return fields;
}

void RefuseUnsupported(FieldReader& reader) {
  for (const Unsupported& field : UnsupportedFields()) {
    const Json* value = reader.Find(field.name);
    if (value == nullptr) continue;
    bool neutral = false;
    for (const Json& harmless : field.neutral) neutral = neutral || *value == harmless;
    if (!neutral) {
      reader.Fail(UnsupportedField(field.name,
                                   fmt::format("{} is not supported: {}", field.name, field.why)));
    }
  }
}

void ReadNumChoices(FieldReader& reader, LogprobsForm form, GenerationFields* out) {
  int64_t n = 1;
  reader.Integer("n", 1, static_cast<int64_t>(kMaxChoices), &n);
  int64_t best_of = n;
  reader.Integer("best_of", 1, static_cast<int64_t>(kMaxChoices), &best_of);
  if (best_of < n) {
    reader.Fail(InvalidField("best_of", fmt::format("best_of is {}: less than n, {}", best_of, n)));
  } else if (best_of > n && form == LogprobsForm::kChat) {
    reader.Fail(UnsupportedField("best_of", "best_of is for text completions, not for chats"));
  } else if (best_of > n && out->stream) {
    reader.Fail(InvalidField(
        "best_of", "best_of cannot be streamed: which answers are best is known at the end"));
  }
  out->num_choices = static_cast<size_t>(n);
  out->best_of = static_cast<size_t>(best_of);
}

}  // namespace

void ReadSampling(FieldReader& reader, SamplingFields* out) {
  reader.Number("temperature", 0, 100, &out->temperature);
  reader.Number("top_p", 0, 1, &out->top_p);
  reader.Number("min_p", 0, 1, &out->min_p);
  reader.Number("typ_p", 0, 1, &out->typical_p);
  reader.Number("typical_p", 0, 1, &out->typical_p);
  reader.Number("repeat_penalty", 0.01, 100, &out->repetition_penalty);
  reader.Number("repetition_penalty", 0.01, 100, &out->repetition_penalty);
  reader.Number("presence_penalty", -2, 2, &out->presence_penalty);
  reader.Number("frequency_penalty", -2, 2, &out->frequency_penalty);

  int64_t top_k = out->top_k;
  reader.Integer("top_k", -1, kInt32Max, &top_k);
  out->top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));

  int64_t last_n = out->penalty_last_n;
  reader.Integer("repeat_last_n", -1, kInt32Max, &last_n);
  reader.Integer("penalty_last_n", -1, kInt32Max, &last_n);
  out->penalty_last_n = static_cast<int32_t>(last_n);
}

void ReadSeed(FieldReader& reader, std::optional<int64_t>* out) {
  int64_t seed = -1;
  reader.Integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(),
                 &seed);
  if (seed != -1) *out = seed;
}

void ReadStop(FieldReader& reader, const char* name, std::vector<std::string>* out) {
  const Json* value = reader.Find(name);
  if (value == nullptr) return;
  const std::string field = reader.ParamOf(name);
  if (!value->is_string() && !value->is_array()) {
    return reader.FailType(field, "a string or an array of strings", *value);
  }
  const size_t count = value->is_array() ? value->size() : 1;
  if (count > kMaxStops) {
    return reader.Fail(InvalidField(
        field, fmt::format("{} has {} strings; at most {} are taken", field, count, kMaxStops)));
  }
  for (size_t i = 0; i < count; i++) {
    const std::string param = value->is_array() ? fmt::format("{}[{}]", field, i) : field;
    std::string text;
    reader.StringValue(value->is_array() ? (*value)[i] : *value, param, &text);
    if (text.size() > kMaxStopBytes) {
      return reader.Fail(InvalidField(param, fmt::format("{} has {} bytes; at most {} are taken",
                                                         param, text.size(), kMaxStopBytes)));
    }
    if (!text.empty()) out->push_back(std::move(text));  // some clients send "" for none
  }
}

void ReadName(FieldReader& reader, const char* name, std::string* out) {
  reader.String(name, out);
  if (out->size() <= kMaxNameBytes) return;
  const std::string param = reader.ParamOf(name);
  reader.Fail(InvalidField(param, fmt::format("{} has {} bytes; at most {} are taken", param,
                                              out->size(), kMaxNameBytes)));
}

void ReadCacheUse(FieldReader& reader, GenerationFields* out) {
  reader.Bool("cache_prompt", &out->cache_prompt);
  reader.Bool("cache_report", &out->cache_report);
  ReadName(reader, "cache_salt", &out->cache_salt);
  int64_t priority = 0;
  reader.Integer("priority", std::numeric_limits<int32_t>::min(), kInt32Max, &priority);
  out->priority = static_cast<int32_t>(priority);
}

void ReadGenerationFields(FieldReader& reader, std::string_view body, LogprobsForm form,
                          GenerationFields* out) {
  ReadSampling(reader, &out->sampling);
  ReadSeed(reader, &out->sampling.seed);
  ReadLogitBias(reader, &out->sampling);
  ReadLogprobs(reader, form, &out->sampling);
  ReadStop(reader, "stop", &out->stop);
  ReadFormat(reader, body, &out->format);
  ReadMaxTokens(reader, out);
  ReadStream(reader, out);
  ReadNumChoices(reader, form, out);
  reader.Bool("ignore_eos", &out->ignore_eos);
  reader.Bool("return_progress", &out->return_progress);
  ReadCacheUse(reader, out);
  ReadName(reader, "user", &out->user);
  ReadName(reader, "prompt_cache_key", &out->prompt_cache_key);
  ReadWholePromptRetention(reader, &out->breakpoints);
  RefuseUnsupported(reader);
}

}  // namespace trellis
