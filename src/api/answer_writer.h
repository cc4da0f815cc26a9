// AnswerWriter: an answer in the form of one API, whole or as a stream.
//
// One per answer, told of everything in order: Begin, Piece ..., End; or Whole alone. What it
// returns is bytes to send, or nothing. Not shared by threads.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"
#include "api/responses.h"

namespace trellis {

class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  virtual std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                            const Timings& timings) = 0;

  // --- A stream ---
  virtual std::string_view content_type() const { return "text/event-stream"; }
  // The prompts are in, and it is known what the cache had of them: `usage` has no completion yet.
  virtual std::string Begin(size_t num_choices, const Usage& usage) = 0;
  // How far a choice's prompt is, for who asked; most APIs have no word for it.
  virtual std::string Progress(size_t choice, const PromptProgressFields& progress) {
    (void)choice, (void)progress;
    return "";
  }
  // `last`: of the whole answer, when it ends with this piece; else null.
  virtual std::string Piece(const ChoiceText& piece, const Timings* last) = 0;
  // Nothing went wrong, and all choices have ended.
  virtual std::string End(const Usage& usage, const Timings& timings) = 0;
  // Instead of what is left.
  virtual std::string Error(const ApiError& error) = 0;

  // While nothing else is to be said: keeps proxies from giving up. Clients pass over it.
  virtual std::string KeepAlive() { return ": waiting\n\n"; }
};

struct StreamFields {
  bool include_usage = false;  // OpenAI's stream_options
};

// OpenAI's chat completions and text completions.
std::unique_ptr<AnswerWriter> NewOpenAiWriter(AnswerHead head, StreamFields fields);
// OpenAI's responses. `repeated`: ResponsesRequest's.
std::unique_ptr<AnswerWriter> NewResponsesWriter(AnswerHead head, const std::string& repeated);
// Anthropic's messages. `cached_to`: prompt tokens up to the last cache_control, 0 where there is
// none: those of them that had to be computed are "created" in the cache.
std::unique_ptr<AnswerWriter> NewAnthropicWriter(AnswerHead head, size_t cached_to);
// llama-server's own completions. `fields`: CompletionRequest's response_fields.
std::unique_ptr<AnswerWriter> NewLlamaWriter(AnswerHead head, std::vector<std::string> fields);
// Ollama's: a JSON object in each line. A call is written when it is whole.
enum class OllamaForm { kChat, kGenerate };
std::unique_ptr<AnswerWriter> NewOllamaWriter(AnswerHead head, OllamaForm form);

}  // namespace trellis
