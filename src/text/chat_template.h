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
#include "text/grammar.h"
#include "text/tokenizer.h"

namespace trellis_llama {
class AnswerSyntax;
}

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

struct ChatOptions {
  std::string tools_json = {};  // OpenAI's tools array as text, or empty
  enum class Calls { kNone, kMay, kMust } calls = Calls::kMay;  // of the tools, in the answer
  std::string only_tool = {};                                   // may be called; empty: all
  std::optional<bool> parallel_calls = {};  // none: if the template can write them
  std::string json_schema = {};  // of the answer's content, as text; empty: it may be anything
  bool thinks = true;            // as far as the template can say it
  // The answer goes on from where the last message ends, which is the assistant's and text alone.
  // Its thoughts are over: `thinks` does not count.
  bool continues = false;
};

// How an answer is written.
struct AnswerFormat {
  // For AnswerReader; null: it is text and nothing else.
  std::shared_ptr<const trellis_llama::AnswerSyntax> syntax = {};
  std::shared_ptr<const Grammar> grammar = {};  // that it has to keep to; null: none
  std::vector<TokenId> shown_tokens = {};       // special tokens that are part of how it is written
  std::vector<std::string> stops = {};          // texts that end it
};

struct ChatPrompt {
  std::vector<TokenId> tokens;
  std::string text;  // what the tokens spell, for logs and /apply-template
  std::shared_ptr<const AnswerFormat> format = {};  // of the answer; never null
};

class ChatTemplate {
 public:
  // `source` is Jinja; empty: ChatML, as llama-server. ERRORS: kInvalidArgument when it does not
  // parse.
  static Result<std::unique_ptr<ChatTemplate>> Create(const Tokenizer& tokenizer,
                                                      const std::string& source);
  ~ChatTemplate();

  // With the generation prompt at the end, and the message that is continued. The tokens depend on
  // the messages, the tools and `thinks` alone, so that they are cached whatever else a turn asks
  // for. The formats of answers with the same tools and options are remembered. ERRORS:
  // kInvalidArgument with the template's own message (raise_exception, wrong role order),
  // kUnsupported when no answer can be held to what is asked for.
  Result<ChatPrompt> Render(const std::vector<ChatMessage>& messages,
                            const ChatOptions& options = {}) const;

  // What it can say, by Ollama's names: "tools", "thinking".
  std::vector<std::string> capabilities() const;

  // A template of a thinking model drops the thoughts of earlier turns. If this one does: what an
  // answer begins with of which the next turn will have nothing, as tokens; none if `prompt`, what
  // Render made, has begun the thoughts itself, so that every answer is one.
  std::optional<std::vector<TokenId>> BeginningOfDropped(const std::string& prompt) const;

 private:
  struct Impl;
  // `begun`: what the answer has begun with.
  Result<ChatPrompt> Render(const std::vector<ChatMessage>& messages, const ChatOptions& options,
                            const std::string& begun) const;
  explicit ChatTemplate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
