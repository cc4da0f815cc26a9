// What Trellis needs of llama.cpp beyond its own headers, free of its types where these come from
// common/. Everything here may throw std::exception, as llama.cpp does. Only text/ and model/
// include it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

struct common_chat_templates;
struct gguf_context;
struct llama_grammar;
struct llama_vocab;

namespace trellis_llama {

// What llama.cpp logged as errors on this thread since the last call, lines joined; it logs nowhere
// else. (Its GGUF reader says in the log, and only there, what is wrong with a file.)
std::string TakeErrors();

// ---- vocabulary
// ---------------------------------------------------------------------------------------------------

struct VocabDeleter {
  void operator()(llama_vocab* vocab) const;
};
using VocabPtr = std::unique_ptr<llama_vocab, VocabDeleter>;

struct Vocab {
  VocabPtr vocab;
  // Its tokens that are looked for in a text before anything else, in order of precedence. `vocab`
  // itself looks for none: its tokenize() takes what lies between two of them.
  std::vector<int32_t> special_tokens;
};

// The vocabulary in a GGUF file's metadata; `gguf` is only read, and not needed afterwards.
// THROWS std::runtime_error. REQUIRES: tokens are distinct and the kind of vocabulary is known;
// llama.cpp asserts it.
Vocab LoadVocab(gguf_context* gguf);

// ---- grammars
// -----------------------------------------------------------------------------------------------

struct GrammarDeleter {
  void operator()(llama_grammar* grammar) const;
};

// A grammar in GBNF, and where a text that grows stands in it. What THROWS std::runtime_error may
// also do so because it takes too long or is nested too deep (work_limits.h); after that it is of
// no more use.
class TextGrammar {
 public:
  // THROWS what is wrong with `gbnf`. `vocab` outlives it.
  TextGrammar(const llama_vocab* vocab, const std::string& gbnf);
  TextGrammar(const TextGrammar& other);  // THROWS
  TextGrammar(TextGrammar&&) = default;

  // Whether the text may go on with this token, or end, if it is one that ends texts. THROWS.
  bool Allows(int32_t token) const;
  // -inf for every token that it may not. `logits`: [size], by token. THROWS.
  void Ban(float* logits, size_t size) const;
  // The text goes on with it. REQUIRES: Allows(token). THROWS.
  void Accept(int32_t token);
  // The same with a piece of it. THROWS also when it may not go on so.
  void AcceptText(const std::string& text);

 private:
  std::unique_ptr<llama_grammar, GrammarDeleter> grammar_;
};

// The GBNF of the JSON texts that a JSON schema accepts. THROWS std::exception: what is wrong with
// it, or no grammar can say.
std::string GrammarOfSchema(const std::string& schema_json);

// ---- chat templates
// -----------------------------------------------------------------------------------------------

struct ChatTurn {
  std::string role;
  std::string content;
  std::vector<std::string> content_parts;  // instead of `content`, unless empty
  std::string tool_calls_json;             // OpenAI's array, or empty
  std::string tool_call_id;
  std::string name;
  std::string reasoning_content;
};

// A stretch of rendered text. `literal`: written by the template itself (its text, its string
// literals, the BOS and EOS it was given, the name of a known role). Whatever came from a message
// or a tool, or passed through an operation that does not keep track, is not.
struct RenderedPart {
  std::string text;
  bool literal = false;
};

struct ChatRequest {
  std::vector<ChatTurn> turns;
  std::string tools_json;                                       // OpenAI's array, or empty
  enum class Calls { kNone, kMay, kMust } calls = Calls::kMay;  // of the tools, in the answer
  std::string only_tool;                                        // may be called; empty: all
  std::optional<bool> parallel_calls;  // none: if the template can write them
  std::string json_schema;             // of the answer's text; empty: it may be any
  bool thinks = true;                  // as far as the template can say it
};

struct ToolCall {
  std::string id;  // the model's own, or empty
  std::string name;
  std::string arguments;  // JSON; the beginning of it, of an answer that is not whole
};
struct ParsedAnswer {
  std::string thoughts;
  std::string content;
  std::vector<ToolCall> calls;
};

// How answers to one request are written: what of one is text, what thoughts, what calls.
// Immutable; any thread.
class AnswerSyntax {
 public:
  struct Impl;
  explicit AnswerSyntax(std::unique_ptr<Impl> impl);
  ~AnswerSyntax();
  // `text` is whole, or the beginning of an answer. THROWS std::exception when it is not written
  // so.
  ParsedAnswer Parse(const std::string& text, bool is_whole) const;

 private:
  std::unique_ptr<Impl> impl_;
};

// How an answer is written, and what it has to keep to.
struct AnswerRules {
  std::shared_ptr<const AnswerSyntax> syntax;
  std::string grammar;         // of the answer, GBNF; empty: any
  std::string grammar_prefix;  // what the prompt has begun of the grammar's text
  // Not empty: the grammar holds from where the answer has one of these on.
  std::vector<std::string> trigger_words;
  // The same for regular expressions, ECMAScript's: from their first group on.
  std::vector<std::string> trigger_patterns;
  std::vector<std::string> shown_tokens;  // special tokens that are part of how it is written
  std::vector<std::string> stops;         // texts that end it
};

// With neither rules nor a key, an answer is text and nothing else.
struct RenderedChat {
  std::vector<RenderedPart> prompt;
  // What RulesFor(the request) depends on: they are the same wherever this is.
  std::string rules_key;
  std::optional<AnswerRules> rules;  // where they came with the prompt
};

struct ChatAnalysis;

// One Jinja template, prepared. Rendering is const and may be done by many threads.
class ChatRenderer {
 public:
  // THROWS when `source` does not parse. `bos` and `eos` are what the template finds as bos_token
  // and eos_token.
  ChatRenderer(const std::string& source, const std::string& bos, const std::string& eos);
  ~ChatRenderer();
  ChatRenderer(const ChatRenderer&) = delete;
  ChatRenderer& operator=(const ChatRenderer&) = delete;

  // `common_chat_templates_apply`, with the generation prompt. The prompt depends on turns, tools
  // and `thinks` alone. THROWS std::exception with the template's own complaint, when JSON in the
  // request is not valid, or when the template exceeds a limit (work_limits.h).
  RenderedChat Render(const ChatRequest& request) const;
  // Takes as long again, and longer the more tools there are.
  AnswerRules RulesFor(const ChatRequest& request) const;

  // Whether answers may call tools, and whether they may have thoughts.
  bool CanCallTools() const;
  bool CanThink() const;

 private:
  bool HasRules(const ChatRequest& request) const;

  std::unique_ptr<common_chat_templates, void (*)(common_chat_templates*)> templates_;
  std::unique_ptr<ChatAnalysis> analysis_;
};

}  // namespace trellis_llama
