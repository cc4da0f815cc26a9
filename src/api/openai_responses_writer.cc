#include <fmt/format.h>

#include <optional>
#include <string>
#include <utility>

#include "api/answer_json.h"
#include "api/answer_writer.h"

namespace trellis {
namespace {

// An output item: thoughts, text or a call. Items come one after the other, each opened and closed.
struct Item {
  enum class Kind { kThoughts, kText, kCall } kind = Kind::kText;
  std::string id;
  std::string text = {};                // or a call's arguments
  std::string call_id = {}, name = {};  // of a call
};

OrderedJson PartJson(const Item& item, const std::string& text) {
  if (item.kind == Item::Kind::kThoughts) return {{"type", "reasoning_text"}, {"text", text}};
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", OrderedJson::array()},
          {"logprobs", OrderedJson::array()}};
}

OrderedJson ItemJson(const Item& item, const char* status) {
  const bool has_begun = std::string_view(status) != "in_progress";
  OrderedJson parts = OrderedJson::array();
  if (has_begun) parts.push_back(PartJson(item, item.text));
  switch (item.kind) {
    case Item::Kind::kThoughts:
      return {{"id", item.id},
              {"type", "reasoning"},
              {"summary", OrderedJson::array()},
              {"content", std::move(parts)},
              {"status", status}};
    case Item::Kind::kText:
      return {{"id", item.id},
              {"type", "message"},
              {"role", "assistant"},
              {"status", status},
              {"content", std::move(parts)}};
    case Item::Kind::kCall:
      break;
  }
  return {{"id", item.id},     {"type", "function_call"}, {"call_id", item.call_id},
          {"name", item.name}, {"arguments", item.text},  {"status", status}};
}

class ResponsesWriter : public AnswerWriter {
 public:
  ResponsesWriter(AnswerHead head, const std::string& repeated)
      : head_(std::move(head)), repeated_(OrderedJson::parse(repeated)) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                    const Timings& timings) override {
    const ChoiceText& choice = choices.front();
    last_ = choice;
    if (!choice.thoughts.empty()) Keep({Item::Kind::kThoughts, NewId("rs"), choice.thoughts});
    if (!choice.text.empty() || choice.calls.empty())
      Keep({Item::Kind::kText, NewId("msg"), choice.text});
    for (const AnswerDelta::Call& call : choice.calls)
      Keep({Item::Kind::kCall, NewId("fc"), call.arguments, call.id, call.name});
    return ToText(Ended(usage, timings));
  }

  std::string Begin(size_t, const Usage&) override {
    const OrderedJson response = Response("in_progress");
    std::string out = Event("response.created", {{"response", response}});
    out += Event("response.in_progress", {{"response", response}});
    return out;
  }

  std::string Piece(const ChoiceText& piece, const Timings*) override {
    std::string out;
    if (!piece.thoughts.empty()) out += Say(Item::Kind::kThoughts, "rs", piece.thoughts);
    if (!piece.text.empty()) out += Say(Item::Kind::kText, "msg", piece.text);
    for (const AnswerDelta::Call& call : piece.calls) {
      if (!call.id.empty()) out += Open({Item::Kind::kCall, NewId("fc"), "", call.id, call.name});
      if (call.arguments.empty()) continue;
      open_->text += call.arguments;
      out += ItemEvent("response.function_call_arguments.delta", {{"delta", call.arguments}});
    }
    if (piece.finish_reason != nullptr) last_ = piece;
    return out;
  }

  std::string End(const Usage& usage, const Timings& timings) override {
    std::string out;
    // An answer that says nothing is an empty message.
    if (!open_ && output_.empty()) out += Open({Item::Kind::kText, NewId("msg")});
    out += Close();
    OrderedJson response = Ended(usage, timings);
    return out + Event(is_cut() ? "response.incomplete" : "response.completed",
                       {{"response", std::move(response)}});
  }

  std::string Error(const ApiError& error) override {
    OrderedJson response = Response("failed");
    response["error"] = {{"code", error.code.empty() ? "server_error" : error.code},
                         {"message", error.message}};
    return Event("response.failed", {{"response", std::move(response)}});
  }

 private:
  bool is_cut() const {
    return last_.finish_reason != nullptr && std::string_view(last_.finish_reason) == "length";
  }
  std::string NewId(const char* kind) {
    // The response's own number, and the item's in it.
    return fmt::format("{}_{}{:02x}", kind, head_.id.substr(head_.id.find('_') + 1), num_items_++);
  }

  OrderedJson Response(const char* status) const {
    OrderedJson response = {
        {"id", head_.id},       {"object", "response"}, {"created_at", head_.created},
        {"status", status},     {"error", nullptr},     {"incomplete_details", nullptr},
        {"model", head_.model}, {"output", output_},    {"usage", nullptr}};
    response.update(repeated_);
    return response;
  }
  OrderedJson Ended(const Usage& usage, const Timings& timings) const {
    OrderedJson response = Response(is_cut() ? "incomplete" : "completed");
    if (is_cut()) response["incomplete_details"] = {{"reason", "max_output_tokens"}};
    response["usage"] = {{"input_tokens", usage.prompt_tokens},
                         {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
                         {"output_tokens", usage.completion_tokens},
                         {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
                         {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
    response["timings"] = TimingsJson(timings);
    return response;
  }

  std::string Event(const char* type, OrderedJson fields) {
    OrderedJson event = {{"type", type}, {"sequence_number", num_events_++}};
    event.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, ToText(event));
  }
  // About the item that is open, or a part of it.
  std::string ItemEvent(const char* type, OrderedJson fields) {
    OrderedJson all = {{"item_id", open_->id}, {"output_index", output_.size()}};
    if (open_->kind != Item::Kind::kCall) all["content_index"] = 0;
    all.update(fields);
    return Event(type, std::move(all));
  }

  std::string Open(Item item) {
    std::string out = Close();
    open_ = std::move(item);
    out += Event("response.output_item.added",
                 {{"output_index", output_.size()}, {"item", ItemJson(*open_, "in_progress")}});
    if (open_->kind == Item::Kind::kCall) return out;
    return out + ItemEvent("response.content_part.added", {{"part", PartJson(*open_, "")}});
  }
  std::string Say(Item::Kind kind, const char* id_kind, const std::string& text) {
    std::string out;
    if (!open_ || open_->kind != kind) out = Open({kind, NewId(id_kind)});
    open_->text += text;
    OrderedJson fields = {{"delta", text}};
    if (kind == Item::Kind::kThoughts)
      return out + ItemEvent("response.reasoning_text.delta", std::move(fields));
    fields["logprobs"] = OrderedJson::array();
    return out + ItemEvent("response.output_text.delta", std::move(fields));
  }
  std::string Close() {
    if (!open_) return "";
    std::string out;
    if (open_->kind == Item::Kind::kCall) {
      out += ItemEvent("response.function_call_arguments.done",
                       {{"name", open_->name}, {"arguments", open_->text}});
    } else {
      const bool thought = open_->kind == Item::Kind::kThoughts;
      OrderedJson fields = {{"text", open_->text}};
      if (!thought) fields["logprobs"] = OrderedJson::array();
      out += ItemEvent(thought ? "response.reasoning_text.done" : "response.output_text.done",
                       std::move(fields));
      out += ItemEvent("response.content_part.done", {{"part", PartJson(*open_, open_->text)}});
    }
    const size_t index = output_.size();
    Keep(*std::exchange(open_, std::nullopt));
    return out +
           Event("response.output_item.done", {{"output_index", index}, {"item", output_.back()}});
  }
  void Keep(const Item& item) { output_.push_back(ItemJson(item, "completed")); }

  const AnswerHead head_;
  const OrderedJson repeated_;
  OrderedJson output_ = OrderedJson::array();  // items that are closed
  std::optional<Item> open_;
  size_t num_items_ = 0, num_events_ = 0;
  ChoiceText last_;  // its end
};

}  // namespace

std::unique_ptr<AnswerWriter> NewResponsesWriter(AnswerHead head, const std::string& repeated) {
  return std::make_unique<ResponsesWriter>(std::move(head), repeated);
}

}  // namespace trellis
