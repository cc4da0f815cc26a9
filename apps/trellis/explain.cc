// trellis explain: where the prompts of two requests part, and what to change so that the second
// one finds more of the first in the cache. Needs the model's file for its vocabulary and template,
// and computes nothing.
#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <regex>
#include <set>

#include "api/json_text.h"
#include "api/requests.h"
#include "base/common_prefix.h"
#include "commands.h"
#include "console.h"
#include "models.h"
#include "os/mapped_file.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace trellis {
namespace {

struct Flags {
  std::string model, first, second;
};

struct Body {
  std::string path;
  GenerationFields generation;
  ChatRequest chat;  // without messages: a text completion
  std::vector<TokenId> tokens;
  std::string text;  // what they spell
};

Result<std::string> ReadText(const std::string& path) {
  TRELLIS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

// ERRORS: those of the file, and what the server would answer 400 to.
Result<Body> ReadBody(const std::string& path, const Tokenizer& tokenizer,
                      const ChatTemplate& chat_template) {
  TRELLIS_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  const auto invalid = [&](const ApiError& error) {
    return Status(StatusCode::kInvalidArgument, fmt::format("{}: {}", path, error.message));
  };
  auto json = ParseJson(text);
  if (!json.ok()) return invalid(json.error());
  Body body{.path = path, .generation = {}, .chat = {}, .tokens = {}, .text = {}};
  if (json.value().is_object() && json.value().contains("prompt")) {
    auto request = ParseCompletionRequest(text);
    if (!request.ok()) return invalid(request.error());
    body.generation = request.value().generation;
    if (request.value().prompts.size() > 1)
      return Status(StatusCode::kInvalidArgument,
                    fmt::format("{}: it has {} prompts; give a file for each", path,
                                request.value().prompts.size()));
    const Prompt& prompt = request.value().prompts.front();
    body.tokens = std::holds_alternative<std::string>(prompt)
                      ? tokenizer.Encode(std::get<std::string>(prompt), AddSpecial::kByVocabulary,
                                         SpecialTokens::kParse)
                      : std::get<std::vector<TokenId>>(prompt);
    for (const TokenId token : body.tokens) {
      if (token < 0 || static_cast<size_t>(token) >= tokenizer.vocab_size())
        return Status(StatusCode::kInvalidArgument,
                      fmt::format("{}: token {} is not in the vocabulary", path, token));
    }
  } else {
    auto request = ParseChatRequest(text);
    if (!request.ok()) return invalid(request.error());
    body.chat = std::move(request.value());
    body.generation = body.chat.generation;
    auto prompt = chat_template.Render(body.chat.messages, {.tools_json = body.chat.tools_json});
    if (!prompt.ok())
      return Status(prompt.status().code(), fmt::format("{}: {}", path, prompt.status().message()));
    body.tokens = std::move(prompt->tokens);
  }
  if (body.tokens.empty())
    return Status(StatusCode::kInvalidArgument, fmt::format("{}: the prompt is empty", path));
  body.text = tokenizer.Pieces(body.tokens, SpecialTokens::kParse);
  return body;
}

// The message whose content is at `offset` of the text; none: the template's own words, or tools.
std::optional<size_t> MessageAt(const Body& body, size_t offset) {
  size_t from = 0;
  for (size_t i = 0; i < body.chat.messages.size(); i++) {
    const ChatMessage& message = body.chat.messages[i];
    std::vector<std::string> parts = message.content_parts;
    if (parts.empty()) parts.push_back(message.content);
    for (const std::string& part : parts) {
      const size_t at = part.empty() ? std::string::npos : body.text.find(part, from);
      if (at == std::string::npos) continue;
      if (at <= offset && offset <= at + part.size()) return i;
      from = at + part.size();
    }
  }
  return std::nullopt;
}

bool IsSame(const ChatMessage& a, const ChatMessage& b) {
  return a.role == b.role && a.content == b.content && a.content_parts == b.content_parts &&
         a.tool_calls_json == b.tool_calls_json && a.tool_call_id == b.tool_call_id &&
         a.name == b.name && a.reasoning_content == b.reasoning_content;
}

// The tools as text, in order.
std::vector<std::string> ToolsOf(const Body& body) {
  std::vector<std::string> tools;
  if (body.chat.tools_json.empty()) return tools;
  auto json = ParseJson(body.chat.tools_json);
  if (!json.ok()) return tools;
  for (const Json& tool : json.value()) tools.push_back(tool.dump());
  return tools;
}

bool HasMatch(const std::string& a, const std::string& b, const char* pattern) {
  const std::regex regex(pattern);
  return std::regex_search(a, regex) && std::regex_search(b, regex);
}

// What differs among the messages, as far as that alone says what to do; `place`: the message of
// the second in which the prompts part, if that is in one.
std::optional<std::string> AdviceOnMessages(const Body& first, const Body& second,
                                            std::optional<size_t> place) {
  const auto& of_first = first.chat.messages;
  const auto& of_second = second.chat.messages;
  const size_t both = std::min(of_first.size(), of_second.size());
  if (both == 0) return std::nullopt;
  if ((of_first[0].role == "system") != (of_second[0].role == "system"))
    return "Only one of them has a system message; where there is none the template may write its "
           "own. Send the same one with every request.";
  const bool are_same = std::equal(
      of_first.begin(), of_first.begin() + static_cast<ptrdiff_t>(both), of_second.begin(), IsSame);
  if (are_same && of_second.size() > both && of_second[both].role != "assistant")
    return fmt::format(
        "The first asks for an answer where the second goes on with messages[{}] ({}): only what "
        "begins an answer is different.",
        both, of_second[both].role);
  if (are_same)
    return "The messages that both have are the same: the model's template writes earlier turns "
           "otherwise than the last one (it may drop their reasoning), and no request can change "
           "that.";
  if (place && *place < both && !IsSame(of_first[*place], of_second[*place]))
    return fmt::format(
        "messages[{}] ({}) differs. What is behind it is computed anew: change earlier messages "
        "only if that is worth it.",
        *place, of_second[*place].role);
  return std::nullopt;
}

// `a`, `b`: what is around the place in both.
std::string Advice(const Body& first, const Body& second, std::optional<size_t> place,
                   const std::string& a, const std::string& b) {
  const auto tools = ToolsOf(first), others = ToolsOf(second);
  if (tools != others && !place) {
    if (std::multiset(tools.begin(), tools.end()) == std::multiset(others.begin(), others.end()))
      return "The tools are the same in another order: send them always in one, by name for "
             "example.";
    return "The tools differ: what is behind them in the prompt is found only with the same tools. "
           "Send all of them with every request, in one order.";
  }
  if (HasMatch(
          a, b,
          R"(\d{1,2}:\d{2}|\d{4}-\d{2}-\d{2}|\d{1,2} (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))"))
    return "That looks like a time or a date: put what changes from request to request behind all "
           "that does not, best into the last message.";
  if (HasMatch(a, b, R"([0-9a-fA-F]{8})"))
    return "That looks like an id: put what changes from request to request behind all that does "
           "not, best into the last message.";
  return AdviceOnMessages(first, second, place)
      .value_or(
          "What is behind the first difference is computed anew: put what changes behind what does "
          "not.");
}

Status Explain(const Flags& flags) {
  TRELLIS_ASSIGN_OR_RETURN(const std::string model, FindModelFile(flags.model));
  TRELLIS_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(model));
  TRELLIS_ASSIGN_OR_RETURN(const auto chat_template,
                           ChatTemplate::Create(*tokenizer, tokenizer->chat_template()));
  TRELLIS_ASSIGN_OR_RETURN(const Body a, ReadBody(flags.first, *tokenizer, *chat_template));
  TRELLIS_ASSIGN_OR_RETURN(const Body b, ReadBody(flags.second, *tokenizer, *chat_template));
  const size_t common = CommonPrefix(a.tokens, b.tokens);
  const bool is_declined = !b.generation.cache_prompt;
  const bool is_apart = a.generation.cache_salt != b.generation.cache_salt;
  const size_t found = is_declined || is_apart ? 0 : std::min(common, b.tokens.size() - 1);
  fmt::print("{}: {} tokens\n{}: {} tokens, of which {} would be found behind {} and {} computed\n",
             a.path, a.tokens.size(), b.path, b.tokens.size(), found, a.path,
             b.tokens.size() - found);
  if (is_declined || is_apart) {
    fmt::print("{}\n", is_apart ? "Their cache_salt differs, so they share nothing."
                                : "The second declines the cache (cache_prompt is false).");
    return Status::Ok();
  }
  if (common == b.tokens.size()) {
    fmt::print("All of it is there; the last token is always computed.\n");
    return Status::Ok();
  }
  if (common == a.tokens.size()) {
    fmt::print("The second goes on where the first ends: there is nothing to gain.\n");
    return Status::Ok();
  }
  constexpr size_t kBefore = 12, kAfter = 16;
  const size_t from = common - std::min(common, kBefore);
  const auto text = [&](const Body& body, size_t begin, size_t end) {
    const auto tokens = std::span<const TokenId>(body.tokens);
    return tokenizer->Pieces(tokens.subspan(begin, std::min(end, tokens.size()) - begin),
                             SpecialTokens::kParse);
  };
  const auto quoted = [&](const Body& body) {
    return fmt::format("{} | {}", ToText(text(body, from, common)),
                       ToText(text(body, common, common + kAfter)));
  };
  const std::optional<size_t> message = MessageAt(b, text(b, 0, common).size());
  const std::string place =
      message ? fmt::format(" in messages[{}] ({})", *message, b.chat.messages[*message].role) : "";
  fmt::print("They part at token {}{}:\n  {}: {}\n  {}: {}\n{}\n", common, place, a.path, quoted(a),
             b.path, quoted(b),
             Advice(a, b, message, text(a, from, common + kAfter), text(b, from, common + kAfter)));
  return Status::Ok();
}

}  // namespace

void AddExplain(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* explain = app.add_subcommand(
      "explain", "Say where the prompts of two requests part, and what to change");
  explain
      ->add_option("-m,--model", flags->model,
                   "GGUF file or pulled model, for its vocabulary and template")
      ->required()
      ->type_name("MODEL");
  explain->add_option("first", flags->first, "Body of a chat or text completion, as JSON")
      ->required()
      ->type_name("FILE");
  explain->add_option("second", flags->second, "Body of a later one")
      ->required()
      ->type_name("FILE");
  explain->callback([flags, exit_status] { *exit_status = ExitStatusOf(Explain(*flags)); });
}

}  // namespace trellis
