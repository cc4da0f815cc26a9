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

// llama-server's own POST /completion: one object for each answer, whole or in the event that ends
// it, with counts of that answer alone. A stream has no other end.
class LlamaWriter : public AnswerWriter {
 public:
  explicit LlamaWriter(AnswerHead head) : head_(std::move(head)) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage&,
                    const Timings& timings) override {
    OrderedJson all = OrderedJson::array();
    for (const ChoiceText& choice : choices)
      all.push_back(Last(choice, choice.text, &choice == &choices.back() ? &timings : nullptr));
    return ToText(all.size() == 1 ? all.front() : all);
  }

  std::string Begin(size_t, const Usage&) override { return ""; }
  std::string Progress(size_t choice, const PromptProgressFields& progress) override {
    return Say({{"index", choice},
                {"content", ""},
                {"stop", false},
                {"prompt_progress", ProgressJson(progress)}});
  }
  std::string Piece(const ChoiceText& piece, const Timings* last) override {
    std::string out;
    if (!piece.text.empty())
      out = Say({{"index", piece.index}, {"content", piece.text}, {"stop", false}});
    return piece.finish_reason == nullptr ? out : out + Say(Last(piece, "", last));
  }
  std::string End(const Usage&, const Timings&) override { return ""; }
  std::string Error(const ApiError& error) override { return "data: " + ErrorBody(error) + "\n\n"; }

 private:
  static std::string Say(const OrderedJson& event) { return "data: " + ToText(event) + "\n\n"; }

  // `all`: of all answers, with the last of them: what is not known of each one is there.
  OrderedJson Last(const ChoiceText& choice, const std::string& content, const Timings* all) const {
    Timings timings = choice.timings;
    if (all != nullptr) {
      timings.pinned_tokens = all->pinned_tokens;
      timings.cache_report = all->cache_report;
    }
    return {{"index", choice.index},
            {"content", content},
            {"model", head_.model},
            {"stop", true},
            {"stop_type", StopTypeOf(choice)},
            {"stopping_word", choice.stop_hit},
            {"truncated", false},
            {"tokens_predicted", choice.usage.completion_tokens},
            {"tokens_evaluated", choice.usage.prompt_tokens},
            {"tokens_cached", choice.usage.cached_tokens},
            {"generation_settings", {{"seed", head_.seed}}},
            {"timings", TimingsJson(timings)}};
  }

  const AnswerHead head_;
};

}  // namespace

std::unique_ptr<AnswerWriter> NewLlamaWriter(AnswerHead head) {
  return std::make_unique<LlamaWriter>(std::move(head));
}

}  // namespace trellis
