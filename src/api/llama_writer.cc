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

// The member that `path` ("timings/prompt_n") leads to; null: there is none.
const OrderedJson* MemberAt(const OrderedJson& object, std::string_view path) {
  const OrderedJson* at = &object;
  while (true) {
    const size_t slash = path.find('/');
    const std::string name(path.substr(0, slash));
    if (!at->is_object() || !at->contains(name)) return nullptr;
    at = &at->at(name);
    if (slash == std::string_view::npos) return at;
    path.remove_prefix(slash + 1);
  }
}

// llama-server's own POST /completion: one object for each answer, whole or in the event that ends
// it, with counts of that answer alone. A stream has no other end.
class LlamaWriter : public AnswerWriter {
 public:
  LlamaWriter(AnswerHead head, std::vector<std::string> fields)
      : head_(std::move(head)), fields_(std::move(fields)) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage&,
                    const Timings& timings) override {
    OrderedJson all = OrderedJson::array();
    for (const ChoiceText& choice : choices)
      all.push_back(
          Chosen(Last(choice, choice.text, &choice == &choices.back() ? &timings : nullptr)));
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
    return piece.finish_reason == nullptr ? out : out + Say(Chosen(Last(piece, "", last)));
  }
  std::string End(const Usage&, const Timings&) override { return ""; }
  std::string Error(const ApiError& error) override { return "data: " + ErrorBody(error) + "\n\n"; }

 private:
  static std::string Say(const OrderedJson& event) { return "data: " + ToText(event) + "\n\n"; }

  // Those that were asked for, each under its path.
  OrderedJson Chosen(OrderedJson all) const {
    if (fields_.empty()) return all;
    OrderedJson chosen = OrderedJson::object();
    for (const std::string& path : fields_) {
      if (const OrderedJson* member = MemberAt(all, path)) chosen[path] = *member;
    }
    return chosen;
  }

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
  const std::vector<std::string> fields_;
};

}  // namespace

std::unique_ptr<AnswerWriter> NewLlamaWriter(AnswerHead head, std::vector<std::string> fields) {
  return std::make_unique<LlamaWriter>(std::move(head), std::move(fields));
}

}  // namespace trellis
