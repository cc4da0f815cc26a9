// What Trellis needs of llama.cpp beyond its own headers, free of its types where these come from
// common/. Everything here may throw std::exception, as llama.cpp does. Only text/ and model/
// include it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct common_chat_templates;
struct gguf_context;
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

// One Jinja template, prepared. Rendering is const and may be done by many threads.
class ChatRenderer {
 public:
  // THROWS when `source` does not parse. `bos` and `eos` are what the template finds as bos_token
  // and eos_token.
  ChatRenderer(const std::string& source, const std::string& bos, const std::string& eos);
  ~ChatRenderer();
  ChatRenderer(const ChatRenderer&) = delete;
  ChatRenderer& operator=(const ChatRenderer&) = delete;

  // The text of `common_chat_templates_apply`, with the generation prompt. `tools_json`: OpenAI's
  // array, or empty. THROWS std::exception with the template's own complaint, when JSON in the
  // arguments is not valid, or when the template exceeds a limit (jinja_limits.h).
  std::vector<RenderedPart> Render(const std::vector<ChatTurn>& turns,
                                   const std::string& tools_json) const;

 private:
  common_chat_templates* templates_;
  // Some families have code of their own in llama.cpp, which rewrites messages before they are
  // rendered.
  bool has_own_code_;
};

}  // namespace trellis_llama
