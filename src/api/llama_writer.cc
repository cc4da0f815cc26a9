#include <string>

#include "api/answer_json.h"
#include "api/answer_writer.h"

namespace trellis {
namespace {

// "eos", "limit", "word": why it ended, as llama-server says it.
const char* StopTypeOf(const ChoiceText& choice) {
  if (!choice.stop_hit.empty()) return "word";
  return std::string_view(choice.finish_reason) == "length" ? "limit" : "eos";
}

// llama-server's own POST /completion: one object for each prompt, or in each event.
class LlamaWriter : public AnswerWriter {
 public:
  explicit LlamaWriter(AnswerHead head) : head_(std::move(head)) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                    const Timings& timings) override {
    if (choices.size() == 1) return ToText(Last(choices.front(), usage, timings));
    OrderedJson all = OrderedJson::array();
    for (const ChoiceText& choice : choices) all.push_back(Last(choice, usage, timings));
    return ToText(all);
  }

  std::string Begin(size_t, const Usage&) override { return ""; }
  std::string Progress(size_t choice, const PromptProgressFields& progress) override {
    return Say({{"index", choice},
                {"content", ""},
                {"stop", false},
                {"prompt_progress", ProgressJson(progress)}});
  }
  std::string Piece(const ChoiceText& piece, const Timings*) override {
    if (piece.finish_reason != nullptr) last_ = piece;
    if (piece.text.empty()) return "";
    return Say({{"index", piece.index}, {"content", piece.text}, {"stop", false}});
  }
  std::string End(const Usage& usage, const Timings& timings) override {
    last_.text.clear();
    return Say(Last(last_, usage, timings));
  }
  std::string Error(const ApiError& error) override { return "data: " + ErrorBody(error) + "\n\n"; }

 private:
  static std::string Say(const OrderedJson& event) { return "data: " + ToText(event) + "\n\n"; }

  OrderedJson Last(const ChoiceText& choice, const Usage& usage, const Timings& timings) const {
    return {{"index", choice.index},
            {"content", choice.text},
            {"model", head_.model},
            {"stop", true},
            {"stop_type", StopTypeOf(choice)},
            {"stopping_word", choice.stop_hit},
            {"truncated", false},
            {"tokens_predicted", usage.completion_tokens},
            {"tokens_evaluated", usage.prompt_tokens},
            {"tokens_cached", usage.cached_tokens},
            {"generation_settings", {{"seed", head_.seed}}},
            {"timings", TimingsJson(timings)}};
  }

  const AnswerHead head_;
  ChoiceText last_;  // its end
};

}  // namespace

std::unique_ptr<AnswerWriter> NewLlamaWriter(AnswerHead head) {
  return std::make_unique<LlamaWriter>(std::move(head));
}

}  // namespace trellis
