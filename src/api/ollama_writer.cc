#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <string>

#include "api/answer_json.h"
#include "api/answer_writer.h"

namespace trellis {
namespace {

std::string Now() {
  const auto now = std::chrono::floor<std::chrono::milliseconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z", now);
}

int64_t Nanoseconds(double ms) {
  return static_cast<int64_t>(ms * 1e6);
}

class OllamaWriter : public AnswerWriter {
 public:
  OllamaWriter(AnswerHead head, OllamaForm form) : head_(std::move(head)), form_(form) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                    const Timings& timings) override {
    const ChoiceText& choice = choices.front();
    for (const AnswerDelta::Call& call : choice.calls) calls_.push_back(call);
    last_ = choice;
    OrderedJson line = Last(choice.thoughts, choice.text, usage, timings);
    if (choice.has_logprobs) line["logprobs"] = LogprobsJson(choice.logprobs);
    return ToText(line);
  }

  std::string_view content_type() const override { return "application/x-ndjson"; }
  std::string Begin(size_t, const Usage&) override { return ""; }

  std::string Piece(const ChoiceText& piece, const Timings*) override {
    for (const AnswerDelta::Call& call : piece.calls) {
      if (!call.id.empty()) {
        calls_.push_back(call);
      } else {
        calls_.back().arguments += call.arguments;
      }
    }
    if (piece.finish_reason != nullptr) last_ = piece;
    if (piece.text.empty() && piece.thoughts.empty() && piece.logprobs.empty()) return "";
    OrderedJson line = Line(piece.thoughts, piece.text);
    line["done"] = false;
    if (!piece.logprobs.empty()) line["logprobs"] = LogprobsJson(piece.logprobs);
    return ToText(line) + "\n";
  }

  std::string End(const Usage& usage, const Timings& timings) override {
    return ToText(Last("", "", usage, timings)) + "\n";
  }
  std::string Error(const ApiError& error) override {
    return ErrorBody(error, ErrorForm::kOllama) + "\n";
  }
  std::string KeepAlive() override { return ""; }  // its clients read each line

 private:
  OrderedJson Line(const std::string& thoughts, const std::string& text) const {
    OrderedJson line = {{"model", head_.model}, {"created_at", Now()}};
    if (form_ == OllamaForm::kGenerate) {
      line["response"] = text;
      if (!thoughts.empty()) line["thinking"] = thoughts;
      return line;
    }
    line["message"] = {{"role", "assistant"}, {"content", text}};
    if (!thoughts.empty()) line["message"]["thinking"] = thoughts;
    return line;
  }

  OrderedJson Last(const std::string& thoughts, const std::string& text, const Usage& usage,
                   const Timings& timings) const {
    OrderedJson line = Line(thoughts, text);
    for (const AnswerDelta::Call& call : calls_) {
      OrderedJson arguments =
          OrderedJson::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
      if (!arguments.is_object()) arguments = OrderedJson::object();
      line["message"]["tool_calls"].push_back(
          {{"function", {{"name", call.name}, {"arguments", std::move(arguments)}}}});
    }
    // What ends with a call is a "stop" there.
    const bool calls = std::string_view(last_.finish_reason) == "tool_calls";
    const double prompt_ms = timings.queued_ms + timings.prompt_ms;
    line["done"] = true;
    line["done_reason"] = calls ? "stop" : last_.finish_reason;
    line["total_duration"] = Nanoseconds(prompt_ms + timings.predicted_ms);
    line["load_duration"] = 0;
    line["prompt_eval_count"] = usage.prompt_tokens;
    line["prompt_eval_duration"] = Nanoseconds(prompt_ms);
    line["eval_count"] = usage.completion_tokens;
    line["eval_duration"] = Nanoseconds(timings.predicted_ms);
    line["timings"] = TimingsJson(timings);
    return line;
  }

  const AnswerHead head_;
  const OllamaForm form_;
  std::vector<AnswerDelta::Call> calls_;
  ChoiceText last_;  // its end
};

}  // namespace

std::unique_ptr<AnswerWriter> NewOllamaWriter(AnswerHead head, OllamaForm form) {
  return std::make_unique<OllamaWriter>(std::move(head), form);
}

}  // namespace trellis
