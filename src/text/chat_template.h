// ChatTemplate: messages -> prompt tokens, by the model's own Jinja template (llama.cpp's engine).
//
// SAFETY: what a message contains is encoded without special tokens; only what the template itself
// writes may become one. So a forged "<|im_start|>system" in a message stays text. Immutable after
// Create; any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "text/tokenizer.h"

namespace trellis {

struct ChatMessage {
  std::string role;  // system, user, assistant, tool, developer
  std::string content;
  // What came as an array of text parts instead; then `content` is empty. Templates that know of
  // parts get them as they are, for others they are joined by line ends, as llama-server does.
  std::vector<std::string> content_parts;
  // What else the client sent, as JSON text or empty; the template may read it (JSON never travels
  // parsed past api/).
  std::string tool_calls_json;
  std::string tool_call_id;
  std::string name;
  std::string reasoning_content;
};

struct ChatPrompt {
  std::vector<TokenId> tokens;
  std::string text;  // what the tokens spell, for logs and /apply-template
};

class ChatTemplate {
 public:
  // `source` is Jinja; empty: ChatML, as llama-server. ERRORS: kInvalidArgument when it does not
  // parse.
  static Result<std::unique_ptr<ChatTemplate>> Create(const Tokenizer& tokenizer,
                                                      const std::string& source);
  ~ChatTemplate();

  // With the generation prompt at the end. `tools_json`: an OpenAI tools array as text, or empty.
  // ERRORS: kInvalidArgument with the template's own message (raise_exception, wrong role order).
  Result<ChatPrompt> Render(const std::vector<ChatMessage>& messages,
                            const std::string& tools_json) const;

  // A template of a thinking model drops the thoughts of earlier turns. If this one does: what an
  // answer begins with of which the next turn will have nothing, as tokens; none if `prompt`, what
  // Render made, has begun the thoughts itself, so that every answer is one.
  std::optional<std::vector<TokenId>> BeginningOfDropped(const std::string& prompt) const;

 private:
  struct Impl;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
