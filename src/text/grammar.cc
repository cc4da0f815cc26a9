#include "text/grammar.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <string_view>
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
  try {
    auto parsed = std::make_unique<TextGrammar>(tokenizer.impl().vocab.get(), source.gbnf);
    if (!source.prefix.empty()) parsed->AcceptText(source.prefix);
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

size_t Grammar::FindTrigger(const std::string& text, size_t from) const {
  size_t first = text.npos;
  for (const std::string& word : words_) {
    // It may have begun before.
    first = std::min(first, text.find(word, from - std::min(from, word.size())));
  }
  // What std::regex does with a text takes as much stack as that is long.
  constexpr size_t kMostForPatterns = 16 << 10;
  for (size_t i = 0; first == text.npos && i < patterns_.size(); i++) {
    std::smatch match;
    if (text.size() > kMostForPatterns || !std::regex_search(text, match, patterns_[i])) continue;
    first = static_cast<size_t>(match.position(match.size() > 1 && match[1].matched ? 1 : 0));
  }
  return first;
}

GrammarState::GrammarState(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)),
      at_(std::make_unique<TextGrammar>(*grammar_->parsed_)),
      waits_(!grammar_->words_.empty() || !grammar_->patterns_.empty()) {}
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

Status GrammarState::Accept(TokenId token) {
  try {
    if (!waits_) {
      at_->Accept(token);
      return Status::Ok();
    }
    const size_t before = text_.size();
    text_ += grammar_->tokenizer_.Piece(token, SpecialTokens::kParse);
    const size_t begin = grammar_->FindTrigger(text_, before);
    if (begin == text_.npos) return Status::Ok();
    at_->AcceptText(text_.substr(begin));
    waits_ = false;
    text_.clear();
    return Status::Ok();
  } catch (const std::exception& error) {
    return Failed("", error);
  }
}

}  // namespace trellis
