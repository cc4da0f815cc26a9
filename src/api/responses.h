// Responses: what was generated, as OpenAI's JSON, with llama-server's `timings`.
//
// Every function returns compact JSON text that is valid UTF-8. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/types.h"
#include "text/answer_reader.h"

namespace trellis {

enum class AnswerForm { kChat, kCompletion };

// What every object of one answer repeats.
struct AnswerHead {
  AnswerForm form = AnswerForm::kChat;
  std::string id;       // chatcmpl-..., cmpl-...
  int64_t created = 0;  // seconds since 1970
  std::string model;
  std::string fingerprint = {};  // system_fingerprint
  int64_t seed = 0;  // the one given or the one drawn; choice i of a prompt uses seed + i
};

// cached + computed == prompt.
struct Usage {
  size_t prompt_tokens = 0;
  size_t cached_tokens = 0;
  size_t completion_tokens = 0;
  size_t reasoning_tokens = 0;  // of these, thoughts, as far as their text alone tells
};

// How far a prompt of `total` tokens is: `cached` needed no computing, `done` are in the cache.
struct PromptProgressFields {
  size_t total = 0, cached = 0, done = 0;
  double ms = 0;  // since the request began
};

// Why prompt tokens were computed; for requests with `cache_report`.
struct CacheReport {
  // Where the prompt left what is cached, and how both go on from there. `cached` is somebody's
  // text: none where that need not be the client's own.
  struct Divergence {
    size_t position = 0;
    std::string prompt;
    std::optional<std::string> cached;
  };
  std::vector<std::pair<std::string, size_t>> missed;  // cause, tokens
  std::optional<Divergence> divergence;
};

// Of one choice, or the sum of several. Milliseconds.
struct Timings {
  size_t cached_tokens = 0;    // cache_n
  size_t computed_tokens = 0;  // prompt_n: prompt tokens that were really run
  size_t predicted_tokens = 0;
  double queued_ms = 0, prompt_ms = 0, predicted_ms = 0;
  std::optional<size_t> pinned_tokens = {};  // pinned_n, for who asked for it
  std::optional<CacheReport> cache_report = {};

  void Add(const Timings& other);  // counts add up; of times the longest stays; no report
};

// A token as text: `bytes` may be half a UTF-8 sequence.
struct LogprobCandidate {
  std::string bytes;
  float logprob = 0;
};
struct LogprobEntry {
  LogprobCandidate chosen;
  std::vector<LogprobCandidate> top;  // most likely first
  size_t text_offset = 0;             // of its first byte in the choice's text
};

// One choice, whole or the next piece of it.
struct ChoiceText {
  size_t index = 0;
  std::string text = {};
  std::string thoughts = {};                  // chats only: reasoning_content
  std::vector<AnswerDelta::Call> calls = {};  // chats only
  bool has_logprobs = false;  // asked for; then `logprobs` is given even if it is empty
  std::vector<LogprobEntry> logprobs = {};
  std::string stop_hit = {};            // the stop string that ended it, if one did
  const char* finish_reason = nullptr;  // "stop", "length", "tool_calls"; null: it goes on
  // At its end: of this choice alone, however many others its prompt has.
  Usage usage = {};
  Timings timings = {};
};

// The whole answer.
std::string AnswerJson(const AnswerHead& head, const std::vector<ChoiceText>& choices,
                       const Usage& usage, const Timings& timings);

// Calls as a message has them, an array; empty when there are none. One whose arguments were cut
// off is left out: no template could write it.
std::string ToolCallsJson(const std::vector<AnswerDelta::Call>& calls);

// --- Streams: the text of one `data:` line each ---

enum class UsageField { kAbsent, kNull };  // null in every chunk but the last with include_usage

// Chat only: the first chunk of a choice, which names the role.
std::string RoleChunk(const AnswerHead& head, size_t choice, UsageField usage);
// A chunk with llama-server's prompt_progress, without text.
std::string ProgressChunk(const AnswerHead& head, size_t choice, UsageField usage,
                          const PromptProgressFields& progress);
// `timings` goes with the piece that finishes the answer, else it is null.
std::string TextChunk(const AnswerHead& head, const ChoiceText& piece, UsageField usage,
                      const Timings* timings);
// The last one, for stream_options.include_usage: no choices.
std::string UsageChunk(const AnswerHead& head, const Usage& usage, const Timings& timings);

// --- Small answers ---

// What POST /v1/cache/warm and /v1/cache/pin have come to.
struct WarmResult {
  bool is_pin = false;
  Usage usage;
  size_t computed_tokens = 0;
  size_t pinned_tokens = 0;
  struct Pin {
    uint64_t id = 0;  // pin-...
    size_t num_tokens = 0;
    int64_t expires_at = 0;  // seconds since 1970
  };
  std::vector<Pin> pins = {};  // of prompts that have a whole page, as far as there was room
};
std::string WarmJson(const WarmResult& result);

// An embedding for each input.
std::string EmbeddingsJson(const AnswerHead& head,
                           const std::vector<std::vector<float>>& embeddings, const Usage& usage,
                           bool base64);
// llama-server's own form: for each input a list of vectors, which is of one, as it is pooled.
std::string LlamaEmbeddingsJson(const std::vector<std::vector<float>>& embeddings);
std::string OllamaEmbeddingJson(const std::vector<float>& embedding);
std::string OllamaEmbeddingsJson(const AnswerHead& head,
                                 const std::vector<std::vector<float>>& embeddings,
                                 const Usage& usage, const Timings& timings);

struct TokenPiece {
  TokenId id = 0;
  std::string bytes;
};
std::string TokenizeJson(const std::vector<TokenId>& tokens);  // {"tokens":[1,2]}
std::string TokenizeWithPiecesJson(
    const std::vector<TokenPiece>& tokens);           // {"tokens":[{"id","piece"}]}
std::string QuotedJson(const std::string& text);      // "..."
std::string DetokenizeJson(const std::string& text);  // {"content":"..."}

}  // namespace trellis
