#include "text/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <list>
#include <string_view>
#include <utility>

#include "base/mutex.h"
#include "llama-vocab.h"
#include "text/prompt_encoder.h"
#include "text/tokenizer_impl.h"
#include "trellis_llama.h"

namespace trellis {
namespace {

using trellis_llama::ChatRenderer;
using trellis_llama::ChatTurn;
using trellis_llama::RenderedChat;
using trellis_llama::RenderedPart;

// The engine's errors come with a trace and an excerpt of the template; the complaint is at the
// end.
std::string Complaint(std::string_view what) {
  for (const std::string_view prefix : {"Error: ", "Jinja Exception: "}) {
    const size_t at = what.rfind(prefix);
    if (at != std::string_view::npos) what.remove_prefix(at + prefix.size());
  }
  // So llama.cpp passes on a parser's error: without its text.
  if (what == "std::exception") return "it is no Jinja that llama.cpp can parse";
  constexpr size_t kEnough = 500;
  std::string line(what.substr(0, kEnough));
  while (!line.empty() && line.back() == '\n') line.pop_back();
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  return line;
}

std::string PieceOrNothing(const Tokenizer& tokenizer, TokenId token) {
  return token < 0 ? "" : tokenizer.Piece(token, SpecialTokens::kParse);
}

std::vector<ChatTurn> ToTurns(const std::vector<ChatMessage>& messages) {
  std::vector<ChatTurn> turns;
  turns.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    turns.push_back({message.role, message.content, message.content_parts, message.tool_calls_json,
                     message.tool_call_id, message.name, message.reasoning_content});
  }
  return turns;
}

trellis_llama::ChatRequest ToRequest(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options) {
  using Calls = trellis_llama::ChatRequest::Calls;
  return {.turns = ToTurns(messages),
          .tools_json = options.tools_json,
          .calls = options.calls == ChatOptions::Calls::kNone   ? Calls::kNone
                   : options.calls == ChatOptions::Calls::kMust ? Calls::kMust
                                                                : Calls::kMay,
          .only_tool = options.only_tool,
          .parallel_calls = options.parallel_calls,
          .json_schema = options.json_schema,
          .thinks = options.thinks};
}

// Removes `size` bytes at the front, or at the back.
void TrimFront(std::vector<RenderedPart>& parts, size_t size) {
  for (RenderedPart& part : parts) {
    const size_t here = std::min(size, part.text.size());
    part.text.erase(0, here);
    size -= here;
  }
}
void TrimBack(std::vector<RenderedPart>& parts, size_t size) {
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    const size_t here = std::min(size, part->text.size());
    part->text.resize(part->text.size() - here);
    size -= here;
  }
}

std::string Join(const std::vector<RenderedPart>& parts) {
  std::string text;
  for (const RenderedPart& part : parts) text += part.text;
  return text;
}

// One source, ready to render.
struct Prepared {
  Prepared(const Tokenizer& tokenizer, const std::string& source)
      : bos(PieceOrNothing(tokenizer, tokenizer.bos())),
        eos(PieceOrNothing(tokenizer, tokenizer.eos())),
        adds_bos(tokenizer.AddsBos()),
        adds_eos(tokenizer.AddsEos()),
        renderer(source, bos, eos),
        encoder(tokenizer, source) {}

  // Where the vocabulary adds BOS or EOS by itself, what the template wrote of them is dropped, as
  // llama-server does.
  void DropAdded(std::vector<RenderedPart>& parts) const {
    const std::string text = Join(parts);
    const bool drop_bos = adds_bos && text.starts_with(bos);
    if (drop_bos) TrimFront(parts, bos.size());
    const std::string_view rest = std::string_view(text).substr(drop_bos ? bos.size() : 0);
    if (adds_eos && rest.ends_with(eos)) TrimBack(parts, eos.size());
  }

  const std::string bos;
  const std::string eos;
  const bool adds_bos;
  const bool adds_eos;
  const ChatRenderer renderer;
  const PromptEncoder encoder;
};

// The formats of answers that were asked for last, by what they depend on. Any thread.
class FormatCache {
 public:
  std::shared_ptr<const AnswerFormat> Find(const std::string& key) {
    MutexLock lock(mutex_);
    const auto found = std::find_if(formats_.begin(), formats_.end(),
                                    [&](const Entry& entry) { return entry.first == key; });
    if (found == formats_.end()) return nullptr;
    formats_.splice(formats_.begin(), formats_, found);
    return found->second;
  }
  void Put(std::string key, std::shared_ptr<const AnswerFormat> format) {
    MutexLock lock(mutex_);
    formats_.emplace_front(std::move(key), std::move(format));
    if (formats_.size() > kMostFormats) formats_.pop_back();
  }

 private:
  using Entry = std::pair<std::string, std::shared_ptr<const AnswerFormat>>;
  // A harness has one or two; each takes up to some megabytes.
  static constexpr size_t kMostFormats = 32;

  Mutex mutex_;
  std::list<Entry> formats_ TRELLIS_GUARDED_BY(mutex_);  // last used first
};

}  // namespace

struct ChatTemplate::Impl {
  explicit Impl(const Tokenizer& t) : tokenizer(t) {}

  // What Render and RulesFor of the same renderer came to.
  Result<std::shared_ptr<const AnswerFormat>> FormatOf(const ChatRenderer& renderer,
                                                       const trellis_llama::ChatRequest& request,
                                                       RenderedChat& rendered);
  Result<std::shared_ptr<const AnswerFormat>> MakeFormat(trellis_llama::AnswerRules rules) const;

  const Tokenizer& tokenizer;
  FormatCache formats;
  std::unique_ptr<Prepared> plain;
  std::unique_ptr<Prepared> with_tools;  // null: the same as plain
  bool drops_thoughts = false;           // of earlier turns
};

namespace {

constexpr std::string_view kThoughts = "<think>";

// Asks the template itself: what it makes of an answer with thoughts when the chat goes on.
bool DropsThoughts(const ChatTemplate& chat_template) {
  const auto message = [](const char* role, const char* content) {
    ChatMessage made;
    made.role = role;
    made.content = content;
    return made;
  };
  const Result<ChatPrompt> prompt = chat_template.Render(
      {message("user", "One?"), message("assistant", "<think>\nInwardly.\n</think>\n\nAloud."),
       message("user", "Two?")});
  return prompt.ok() && prompt->text.find("Aloud.") != std::string::npos &&
         prompt->text.find("Inwardly.") == std::string::npos;
}

}  // namespace

Result<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(const Tokenizer& tokenizer,
                                                           const std::string& source) {
  auto impl = std::make_unique<Impl>(tokenizer);
  try {
    impl->plain = std::make_unique<Prepared>(tokenizer, source.empty() ? "chatml" : source);
    const std::string& tool_source = tokenizer.impl().tool_template;
    if (!tool_source.empty() && source == tokenizer.chat_template()) {
      impl->with_tools = std::make_unique<Prepared>(tokenizer, tool_source);
    }
  } catch (const std::exception& error) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("the chat template cannot be used: {}", Complaint(error.what())));
  }
  auto made = std::unique_ptr<ChatTemplate>(new ChatTemplate(std::move(impl)));
  made->impl_->drops_thoughts = DropsThoughts(*made);
  return made;
}

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

std::vector<std::string> ChatTemplate::capabilities() const {
  const Prepared& prepared = impl_->with_tools != nullptr ? *impl_->with_tools : *impl_->plain;
  std::vector<std::string> names;
  if (prepared.renderer.CanCallTools()) names.emplace_back("tools");
  if (prepared.renderer.CanThink()) names.emplace_back("thinking");
  return names;
}

std::optional<std::vector<TokenId>> ChatTemplate::BeginningOfDropped(
    const std::string& prompt) const {
  if (!impl_->drops_thoughts) return std::nullopt;
  const std::string_view written(prompt.data(), prompt.find_last_not_of(" \n") + 1);
  if (written.ends_with(kThoughts)) return std::vector<TokenId>();
  return impl_->tokenizer.Encode(std::string(kThoughts), AddSpecial::kNo, SpecialTokens::kParse);
}

Result<std::shared_ptr<const AnswerFormat>> ChatTemplate::Impl::MakeFormat(
    trellis_llama::AnswerRules rules) const {
  auto format = std::make_shared<AnswerFormat>();
  format->syntax = std::move(rules.syntax);
  format->stops = std::move(rules.stops);
  for (const std::string& text : rules.shown_tokens) {
    const std::vector<TokenId> token =
        tokenizer.Encode(text, AddSpecial::kNo, SpecialTokens::kParse);
    if (token.size() == 1) format->shown_tokens.push_back(token[0]);
  }
  if (!rules.grammar.empty()) {
    auto grammar =
        Grammar::Parse(tokenizer, {.gbnf = std::move(rules.grammar),
                                   .prefix = std::move(rules.grammar_prefix),
                                   .trigger_words = std::move(rules.trigger_words),
                                   .trigger_patterns = std::move(rules.trigger_patterns)});
    if (!grammar.ok()) return Status(StatusCode::kUnsupported, grammar.status().message());
    format->grammar = std::move(*grammar);
  }
  return std::shared_ptr<const AnswerFormat>(std::move(format));
}

Result<std::shared_ptr<const AnswerFormat>> ChatTemplate::Impl::FormatOf(
    const ChatRenderer& renderer, const trellis_llama::ChatRequest& request,
    RenderedChat& rendered) {
  if (rendered.rules) return MakeFormat(*std::move(rendered.rules));
  if (rendered.rules_key.empty()) return std::make_shared<const AnswerFormat>();
  if (&renderer != &plain->renderer) rendered.rules_key += "t";
  if (auto known = formats.Find(rendered.rules_key)) return known;
  TRELLIS_ASSIGN_OR_RETURN(std::shared_ptr<const AnswerFormat> format,
                           MakeFormat(renderer.RulesFor(request)));
  formats.Put(std::move(rendered.rules_key), format);
  return format;
}

Result<ChatPrompt> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                        const ChatOptions& options) const {
  if (!options.continues) return Render(messages, options, "");
  if (messages.size() < 2) {
    return Status(StatusCode::kInvalidArgument,
                  "the only message is the assistant's: there is nothing that it answers");
  }
  const ChatMessage& last = messages.back();
  std::string begun = last.content;
  for (const std::string& part : last.content_parts) begun += (begun.empty() ? "" : "\n") + part;
  ChatOptions options_before = options;
  options_before.thinks = false;
  return Render({messages.begin(), messages.end() - 1}, options_before, begun);
}

Result<ChatPrompt> ChatTemplate::Render(const std::vector<ChatMessage>& messages,
                                        const ChatOptions& options,
                                        const std::string& begun) const {
  const bool use_tools = !options.tools_json.empty() && impl_->with_tools != nullptr;
  const Prepared& prepared = use_tools ? *impl_->with_tools : *impl_->plain;
  const trellis_llama::ChatRequest request = ToRequest(messages, options);
  RenderedChat rendered;
  ChatPrompt prompt;
  try {
    rendered = prepared.renderer.Render(request);
    TRELLIS_ASSIGN_OR_RETURN(prompt.format, impl_->FormatOf(prepared.renderer, request, rendered));
  } catch (const std::exception& error) {
    // llama.cpp's words for a schema that it makes no grammar of.
    const std::string_view what = error.what();
    const size_t schema = what.find("JSON schema error");
    if (schema != std::string_view::npos && !options.json_schema.empty())
      return Status(StatusCode::kUnsupported, std::string(what.substr(schema)));
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("the chat template refused the messages: {}", Complaint(what)));
  }
  if (options.calls == ChatOptions::Calls::kMust && prompt.format->grammar == nullptr) {
    return Status(StatusCode::kUnsupported,
                  "the model's chat template knows no tools: it cannot be made to call one");
  }
  prepared.DropAdded(rendered.prompt);
  std::vector<PromptPart> parts;
  for (RenderedPart& part : rendered.prompt) {
    prompt.text += part.text;
    parts.push_back({std::move(part.text), part.literal});
  }
  prompt.text += begun;
  parts.push_back({begun, false});
  prompt.tokens = prepared.encoder.Encode(parts);
  return prompt;
}

}  // namespace trellis
