#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <exception>
#include <string_view>
#include <system_error>
#include <utility>

#include "text/tokenizer_impl.h"
#include "trellis_llama.h"

namespace trellis {
namespace {

using trellis_llama::TextGrammar;

// The parser's errors end with all of the grammar that is left.
std::string Complaint(std::string_view what) {
  constexpr size_t kEnough = 300;
  std::string text(what.substr(0, kEnough));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return what.size() > kEnough ? text + "..." : text;
}

// Reads "{5,3}" at the beginning of `text`: of more times at least than at most. The parser would
// take them for 2^64 less two.
bool IsReversedRepetition(std::string_view text) {
  size_t bounds[2] = {};
  size_t at = 1;
  const auto skip_spaces = [&] {
    at = std::min(text.find_first_not_of(" \t\r\n", at), text.size());
  };
  for (size_t i = 0; i < 2; i++) {
    skip_spaces();
    const char* begin = text.data() + at;
    const auto [end, error] = std::from_chars(begin, text.data() + text.size(), bounds[i]);
    if (error != std::errc()) return false;  // none, or too many for the parser
    at += static_cast<size_t>(end - begin);
    skip_spaces();
    if (i == 0 && (at == text.size() || text[at++] != ',')) return false;
  }
  return bounds[1] < bounds[0];
}

// Where one of them begins, outside of literals, classes and comments; npos: nowhere.
size_t FindReversedRepetition(std::string_view gbnf) {
  char ends = 0;  // what ends the literal, class or comment that we are in; 0: none
  for (size_t i = 0; i < gbnf.size(); i++) {
    const char c = gbnf[i];
    if (ends != 0) {
      if (c == '\\' && ends != '\n') i++;
      if (c == ends) ends = 0;
    } else if (c == '"' || c == '[' || c == '#') {
      ends = c == '"' ? '"' : c == '[' ? ']' : '\n';
    } else if (c == '{' && IsReversedRepetition(gbnf.substr(i))) {
      return i;
    }
  }
  return gbnf.npos;
}

Status Failed(const char* what, const std::exception& error) {
  return Status(StatusCode::kInvalidArgument, fmt::format("{}{}", what, Complaint(error.what())));
}

}  // namespace

Grammar::Grammar(const Tokenizer& tokenizer, std::unique_ptr<TextGrammar> parsed,
                 const GrammarSource& source)
    : tokenizer_(tokenizer),
      parsed_(std::move(parsed)),
      words_(source.trigger_words),
      patterns_(source.trigger_patterns.begin(), source.trigger_patterns.end()) {}
Grammar::~Grammar() = default;

Result<std::shared_ptr<const Grammar>> Grammar::Parse(const Tokenizer& tokenizer,
                                                      const GrammarSource& source) {
  if (const size_t at = FindReversedRepetition(source.gbnf); at != source.gbnf.npos) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("the grammar cannot be used: more times at least than at most: {}",
                              Complaint(std::string_view(source.gbnf).substr(at))));
  }
  try {
    auto parsed = std::make_unique<TextGrammar>(tokenizer.impl().vocab.get(), source.gbnf);
    if (!source.prefix.empty()) parsed->AcceptText(source.prefix);
    const TextGrammar is_not_too_large(*parsed);  // for each answer to have one of its own
    return std::shared_ptr<const Grammar>(new Grammar(tokenizer, std::move(parsed), source));
  } catch (const std::exception& error) {
    return Failed("the grammar cannot be used: ", error);
  }
}

Result<std::shared_ptr<const Grammar>> Grammar::OfJsonSchema(const Tokenizer& tokenizer,
                                                             const std::string& schema) {
  std::string gbnf;
  try {
    gbnf = trellis_llama::GrammarOfSchema(schema);
  } catch (const std::exception& error) {
    return Failed("the schema cannot be used: ", error);
  }
  return Parse(tokenizer, {.gbnf = std::move(gbnf)});
}

size_t Grammar::FindTrigger(const std::string& text, size_t from, bool is_all) const {
  size_t first = text.npos;
  for (const std::string& word : words_) {
    // It may have begun before.
    first = std::min(first, text.find(word, from - std::min(from, word.size())));
  }
  const auto flags =
      is_all ? std::regex_constants::match_default : std::regex_constants::match_not_bol;
  for (size_t i = 0; first == text.npos && i < patterns_.size(); i++) {
    std::smatch match;
    if (!std::regex_search(text, match, patterns_[i], flags)) continue;
    first = static_cast<size_t>(match.position(match.size() > 1 && match[1].matched ? 1 : 0));
  }
  return first;
}

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)),
      at_(std::make_unique<TextGrammar>(*grammar_->parsed_)),
      waits_(!grammar_->HoldsFromStart()) {}
GrammarState::GrammarState(GrammarState&&) noexcept = default;
GrammarState::~GrammarState() = default;

Result<bool> GrammarState::Allows(TokenId token) const {
  if (waits_) return true;
  try {
    return at_->Allows(token);
  } catch (const std::exception& error) {
    return Failed("", error);
  }
}

Status GrammarState::Ban(std::span<float> logits) const {
  if (waits_) return Status::Ok();
  try {
    at_->Ban(logits.data(), logits.size());
    return Status::Ok();
  } catch (const std::exception& error) {
    return Failed("", error);
  }
}

void GrammarState::Begin(const std::string& text) {
  text_.clear();
  text_is_all_ = false;
  try {
    at_->AcceptText(text);
    waits_ = false;
  } catch (const std::exception&) {
    // It only looked like it: with the trigger came what cannot follow it.
    at_ = std::make_unique<TextGrammar>(*grammar_->parsed_);
  }
}

Status GrammarState::Accept(TokenId token) {
  try {
    if (!waits_) {
      at_->Accept(token);
      return Status::Ok();
    }
    size_t before = text_.size();
    text_ += grammar_->tokenizer_.Piece(token, SpecialTokens::kParse);
    // What std::regex does with a text takes time, and as much stack as that is long.
    constexpr size_t kMost = 4 << 10;
    if (text_.size() > 2 * kMost) {
      const size_t cut = text_.size() - kMost;
      text_.erase(0, cut);
      before -= std::min(before, cut);
      text_is_all_ = false;
    }
    const size_t begin = grammar_->FindTrigger(text_, before, text_is_all_);
    if (begin != text_.npos) Begin(text_.substr(begin));
    return Status::Ok();
  } catch (const std::exception& error) {
    return Failed("", error);
  }
}

}  // namespace trellis
