#include <utility>

#include "api/answer_writer.h"

namespace trellis {
namespace {

class OpenAiWriter : public AnswerWriter {
 public:
  OpenAiWriter(AnswerHead head, StreamFields fields) : head_(std::move(head)), fields_(fields) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                    const Timings& timings) override {
    return AnswerJson(head_, choices, usage, timings);
  }
  std::string Begin(size_t num_choices, const Usage&) override {
    std::string out;
    if (head_.form != AnswerForm::kChat) return out;
    for (size_t i = 0; i < num_choices; i++) out += Say(RoleChunk(head_, i, usage_field()));
    return out;
  }
  std::string Progress(size_t choice, const PromptProgressFields& progress) override {
    return Say(ProgressChunk(head_, choice, usage_field(), progress));
  }
  std::string Piece(const ChoiceText& piece, const Timings* last) override {
    // What says how many tokens there were comes in the last chunk, whichever that is.
    return Say(TextChunk(head_, piece, usage_field(), fields_.include_usage ? nullptr : last));
  }
  std::string End(const Usage& usage, const Timings& timings) override {
    std::string out;
    if (fields_.include_usage) out += Say(UsageChunk(head_, usage, timings));
    return out + "data: [DONE]\n\n";
  }
  std::string Error(const ApiError& error) override {
    return Say(ErrorBody(error)) + "data: [DONE]\n\n";
  }

 private:
  UsageField usage_field() const {
    return fields_.include_usage ? UsageField::kNull : UsageField::kAbsent;
  }
  static std::string Say(const std::string& json) { return "data: " + json + "\n\n"; }

  const AnswerHead head_;
  const StreamFields fields_;
};

}  // namespace

std::unique_ptr<AnswerWriter> NewOpenAiWriter(AnswerHead head, StreamFields fields) {
  return std::make_unique<OpenAiWriter>(std::move(head), fields);
}

}  // namespace trellis
