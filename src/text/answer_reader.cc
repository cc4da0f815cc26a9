#include "text/answer_reader.h"

#include <fmt/format.h>

#include <exception>
#include <random>
#include <utility>

#include "trellis_llama.h"

namespace trellis {
namespace {

using trellis_llama::ParsedAnswer;
using trellis_llama::ToolCall;

std::string NewCallId() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("call_{:016x}", random());
}

// What `now` has more than `given`, which becomes it. A parser may take back what it took for the
// beginning of something else: nothing, until it says more.
std::string Rest(const std::string& now, std::string* given) {
  if (now.size() <= given->size() || !now.starts_with(*given)) return "";
  std::string rest = now.substr(given->size());
  *given = now;
  return rest;
}

}  // namespace

AnswerReader::AnswerReader(std::shared_ptr<const trellis_llama::AnswerSyntax> syntax)
    : syntax_(std::move(syntax)), given_(std::make_unique<ParsedAnswer>()) {}
AnswerReader::~AnswerReader() = default;
AnswerReader::AnswerReader(AnswerReader&&) noexcept = default;

size_t AnswerReader::num_calls() const {
  return given_->calls.size();
}
const std::string& AnswerReader::thoughts() const {
  return given_->thoughts;
}

AnswerDelta AnswerReader::Read() {
  if (syntax_ == nullptr) return {.thoughts = {}, .content = std::exchange(text_, ""), .calls = {}};
  // Of a long text the next piece is longer, so that reading all of it again costs less than
  // writing.
  constexpr size_t kShare = 256;
  if (text_.size() - num_read_ < text_.size() / kShare) return {};
  num_read_ = text_.size();
  try {
    return Grow(syntax_->Parse(text_, /*is_whole=*/false), /*is_whole=*/false);
  } catch (const std::exception&) {
    return {};  // not written so, or not yet
  }
}

AnswerDelta AnswerReader::Finish() {
  if (syntax_ == nullptr) return Read();
  if (text_.empty()) return {};
  try {
    return Grow(syntax_->Parse(text_, /*is_whole=*/true), /*is_whole=*/true);
  } catch (const std::exception&) {
  }
  AnswerDelta last;
  try {  // it ended early
    last = Grow(syntax_->Parse(text_, /*is_whole=*/false), /*is_whole=*/true);
  } catch (const std::exception&) {
  }
  // It looked like something else for a while: then all of it was only text.
  const bool is_text = given_->thoughts.empty() && num_calls() == 0;
  if (is_text && text_.starts_with(given_->content)) last.content += Rest(text_, &given_->content);
  return last;
}

AnswerDelta AnswerReader::Grow(ParsedAnswer parsed, bool is_whole) {
  AnswerDelta delta;
  delta.thoughts = Rest(parsed.thoughts, &given_->thoughts);
  delta.content = Rest(parsed.content, &given_->content);
  for (size_t i = 0; i < parsed.calls.size(); i++) {
    ToolCall& call = parsed.calls[i];
    AnswerDelta::Call next{.index = i, .id = {}, .name = {}, .arguments = {}};
    if (i == given_->calls.size()) {
      // A name is whole when something comes behind it.
      if (call.name.empty() || (call.arguments.empty() && !is_whole)) break;
      next.id = call.id.empty() ? NewCallId() : call.id;
      next.name = call.name;
      given_->calls.push_back({next.id, next.name, ""});
    }
    // A call has arguments, if none are written.
    if (is_whole && call.arguments.empty()) call.arguments = "{}";
    next.arguments = Rest(call.arguments, &given_->calls[i].arguments);
    if (!next.name.empty() || !next.arguments.empty()) delta.calls.push_back(std::move(next));
  }
  return delta;
}

}  // namespace trellis
