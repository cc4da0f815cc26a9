// Requests: OpenAI's JSON, with llama.cpp's and vLLM's additions, as plain structs. JSON ends here.
//
// Every function takes a whole body and returns the request, or the 400 to answer with, which names
// the field. Fields that nobody here knows are ignored, as servers of this API do. Known fields
// that this server cannot honour are refused, unless their value asks for nothing ("tools": []).
// null is the same as absent. Pure functions; any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "api/errors.h"
#include "base/types.h"
#include "text/chat_template.h"
#include "text/infill.h"

namespace trellis {

// Defaults are OpenAI's: the model's own distribution.
struct SamplingFields {
  float temperature = 1.0f;
  int32_t top_k = 0;  // 0: off; the clients' -1 comes as 0
  float top_p = 1.0f;
  float min_p = 0.0f;
  float typical_p = 1.0f;           // also typ_p
  float repetition_penalty = 1.0f;  // also repeat_penalty
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t penalty_last_n = 64;  // also repeat_last_n; -1: the whole context
  // By token id; -100 or less, or false, bans it.
  std::vector<std::pair<TokenId, float>> logit_bias;
  std::optional<int64_t> seed;  // none, or the clients' -1: draw one
  int32_t num_logprobs = -1;    // -1: none; 0: of the chosen token only; n: and the n most likely
};

// Up to here the prompt stays cached for a time, whatever else comes: as many messages, and what
// the template writes before them.
inline constexpr size_t kWholePrompt = std::numeric_limits<size_t>::max();
inline constexpr std::chrono::seconds kDefaultLifetime = std::chrono::minutes(5);

struct CacheBreakpoint {
  size_t num_messages = kWholePrompt;
  std::chrono::seconds lifetime{0};
};

// What the answer's text may be; both empty: anything.
struct TextFormat {
  std::string json_schema;  // as text, its members in the client's order
  std::string grammar;      // GBNF; only one of the two
  std::string param;        // where it comes from
};

// What both ways to ask for text share. Which model is meant is read before: api/model_field.h.
struct GenerationFields {
  SamplingFields sampling;
  std::vector<std::string> stop;
  TextFormat format;
  size_t max_tokens = 0;     // 0: to the end of the context
  bool only_prompt = false;  // the client's max_tokens is 0: nothing is generated
  size_t num_choices = 1;    // n
  size_t best_of = 1;        // so many are sampled, and the n likeliest given; at least n
  bool stream = false;
  bool include_usage = false;    // stream_options.include_usage
  bool return_progress = false;  // streams say how far the prompt is, as llama-server's
  bool ignore_eos = false;
  bool cache_prompt = true;
  bool cache_report = false;  // the answer says why prompt tokens were computed
  std::string cache_salt;     // only requests with the same salt share cached pages
  int32_t priority = 0;       // among its key's requests: smaller goes first, as vLLM's
  // Who asks, as far as it says so; see docs/api.md.
  std::string user, prompt_cache_key;
  // cache_control, at most four, and prompt_cache_retention.
  std::vector<CacheBreakpoint> breakpoints;
};

struct ToolChoice {
  enum class Mode { kAuto, kNone, kRequired } mode = Mode::kAuto;
  std::string name;              // of the one that is required; empty: any
  std::optional<bool> parallel;  // several calls at once; none: as the model's template can
};

struct ChatRequest {
  GenerationFields generation;
  std::vector<ChatMessage> messages;  // at least one
  // The tools that the model is told of, an array as JSON text; empty: none. Whatever tool_choice
  // says, the prompt is the same, so that they share their cached pages.
  std::string tools_json;
  ToolChoice tool_choice;
  bool thinks = true;  // as far as the model's template can say it
  // The answer goes on from where the last message ends. Only if EndsInPart().
  bool continues = false;
};

// Whether the last message is the assistant's, and text alone: llama-server, Ollama and Anthropic's
// API go on from there.
bool EndsInPart(const std::vector<ChatMessage>& messages);

using Prompt = std::variant<std::string, std::vector<TokenId>>;

struct CompletionRequest {
  GenerationFields generation;
  std::vector<Prompt> prompts;  // at least one; choice p * n + i is the i-th answer to prompt p
  bool echo = false;            // the answer starts with the prompt
  std::optional<InfillText> infill;  // instead of prompts
};

// At most this many answers (prompts x n) in one request.
inline constexpr size_t kMaxChoices = 128;

ApiResult<ChatRequest> ParseChatRequest(std::string_view body);
// Without max_tokens an answer has 16, as OpenAI's.
ApiResult<CompletionRequest> ParseCompletionRequest(std::string_view body);
// llama-server's own form of it, with its defaults: to the end of the context, temperature 0.8, ...
ApiResult<CompletionRequest> ParseLlamaCompletion(std::string_view body);
// Its POST /infill: input_prefix, input_suffix, input_extra, prompt.
ApiResult<CompletionRequest> ParseLlamaInfill(std::string_view body);

// POST /v1/embeddings.
struct EmbeddingsRequest {
  GenerationFields generation;  // of these: user, cache_salt, ...
  std::vector<Prompt> inputs;   // at least one
  bool base64 = false;          // of f32, little-endian, instead of numbers
};
// At most this many inputs in one request.
inline constexpr size_t kMaxInputs = 256;
ApiResult<EmbeddingsRequest> ParseEmbeddingsRequest(std::string_view body);

// What POST /v1/cache/pin and /v1/cache/warm say beside a request for an answer.
struct PinFields {
  bool is_chat = false;                          // it has messages, not a prompt
  std::optional<std::chrono::seconds> lifetime;  // ttl, which only pin takes
};
ApiResult<PinFields> ParsePinFields(std::string_view body);

// POST /v1/cache/unpin: "pin": "pin-12", or "all": true.
struct UnpinRequest {
  std::optional<uint64_t> id;  // none: all
};
ApiResult<UnpinRequest> ParseUnpinRequest(std::string_view body);

// POST /tokenize, as llama-server's.
struct TokenizeRequest {
  std::string content;
  bool add_special = false;
  bool parse_special = true;
  bool with_pieces = false;
};
ApiResult<TokenizeRequest> ParseTokenizeRequest(std::string_view body);

// POST /detokenize.
ApiResult<std::vector<TokenId>> ParseDetokenizeRequest(std::string_view body);

}  // namespace trellis
