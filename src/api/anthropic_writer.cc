#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "api/answer_json.h"
#include "api/answer_writer.h"

namespace trellis {
namespace {

// What Anthropic calls the end.
const char* StopReasonOf(const ChoiceText& choice) {
  const std::string_view reason = choice.finish_reason;
  if (reason == "tool_calls") return "tool_use";
  if (reason == "length") return "max_tokens";
  return choice.stop_hit.empty() ? "end_turn" : "stop_sequence";
}

OrderedJson StopJson(const ChoiceText& choice) {
  return {{"stop_reason", StopReasonOf(choice)},
          {"stop_sequence",
           choice.stop_hit.empty() ? OrderedJson(nullptr) : OrderedJson(choice.stop_hit)}};
}

// A message's blocks come one after the other, each opened and closed: thoughts, text, calls.
class AnthropicWriter : public AnswerWriter {
 public:
  AnthropicWriter(AnswerHead head, size_t cached_to)
      : head_(std::move(head)), cached_to_(cached_to) {}

  std::string Whole(const std::vector<ChoiceText>& choices, const Usage& usage,
                    const Timings& timings) override {
    const ChoiceText& choice = choices.front();
    OrderedJson content = OrderedJson::array();
    if (!choice.thoughts.empty()) {
      content.push_back({{"type", "thinking"}, {"thinking", choice.thoughts}, {"signature", ""}});
    }
    if (!choice.text.empty() || (choice.calls.empty() && choice.thoughts.empty())) {
      content.push_back({{"type", "text"}, {"text", choice.text}});
    }
    for (const AnswerDelta::Call& call : choice.calls) {
      // What the model wrote as arguments need not be JSON, if it was cut off.
      OrderedJson input = OrderedJson::parse(call.arguments, nullptr, /*allow_exceptions=*/false);
      if (!input.is_object()) input = OrderedJson::object();
      content.push_back({{"type", "tool_use"},
                         {"id", call.id},
                         {"name", call.name},
                         {"input", std::move(input)}});
    }
    OrderedJson message = Message(std::move(content));
    message.update(StopJson(choice));
    message["usage"] = UsageJson(usage);
    message["timings"] = TimingsJson(timings);
    return ToText(message);
  }

  std::string Begin(size_t, const Usage& usage) override {
    OrderedJson message = Message(OrderedJson::array());
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    message["usage"] = UsageJson(usage);
    return Event("message_start", {{"message", std::move(message)}});
  }

  std::string Piece(const ChoiceText& piece, const Timings*) override {
    std::string out;
    if (!piece.thoughts.empty()) {
      out += Open(Block::kThinking, {{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
      out += Delta({{"type", "thinking_delta"}, {"thinking", piece.thoughts}});
    }
    if (!piece.text.empty()) {
      out += Open(Block::kText, {{"type", "text"}, {"text", ""}});
      out += Delta({{"type", "text_delta"}, {"text", piece.text}});
    }
    for (const AnswerDelta::Call& call : piece.calls) {
      if (!call.id.empty()) {
        out += Close();
        out += Open(Block::kToolUse, {{"type", "tool_use"},
                                      {"id", call.id},
                                      {"name", call.name},
                                      {"input", OrderedJson::object()}});
      }
      if (call.arguments.empty()) continue;
      out += Delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}});
    }
    if (piece.finish_reason != nullptr) last_ = piece;
    return out;
  }

  std::string End(const Usage& usage, const Timings& timings) override {
    std::string out;
    // A message without a block would be one that says nothing at all.
    if (num_blocks_ == 0) out += Open(Block::kText, {{"type", "text"}, {"text", ""}});
    out += Close();
    out += Event("message_delta", {{"delta", StopJson(last_)},
                                   {"usage", UsageJson(usage)},
                                   {"timings", TimingsJson(timings)}});
    return out + Event("message_stop", OrderedJson::object());
  }

  std::string Error(const ApiError& error) override {
    return fmt::format("event: error\ndata: {}\n\n", ErrorBody(error, ErrorForm::kAnthropic));
  }

  std::string KeepAlive() override { return Event("ping", OrderedJson::object()); }

 private:
  enum class Block { kNone, kThinking, kText, kToolUse };

  OrderedJson Message(OrderedJson content) const {
    return {{"id", head_.id},
            {"type", "message"},
            {"role", "assistant"},
            {"model", head_.model},
            {"content", std::move(content)}};
  }
  // input + read + created is the prompt.
  OrderedJson UsageJson(const Usage& usage) const {
    const size_t created = std::max(cached_to_, usage.cached_tokens) - usage.cached_tokens;
    return {{"input_tokens", usage.prompt_tokens - usage.cached_tokens - created},
            {"cache_creation_input_tokens", created},
            {"cache_read_input_tokens", usage.cached_tokens},
            {"output_tokens", usage.completion_tokens}};
  }
  static std::string Event(const char* type, OrderedJson fields) {
    OrderedJson event = {{"type", type}};
    event.update(fields);
    return fmt::format("event: {}\ndata: {}\n\n", type, ToText(event));
  }
  std::string Open(Block block, OrderedJson content_block) {
    if (open_ == block) return "";
    std::string out = Close();
    open_ = block;
    out += Event("content_block_start",
                 {{"index", num_blocks_}, {"content_block", std::move(content_block)}});
    num_blocks_++;
    return out;
  }
  std::string Close() {
    if (open_ == Block::kNone) return "";
    open_ = Block::kNone;
    return Event("content_block_stop", {{"index", num_blocks_ - 1}});
  }
  std::string Delta(OrderedJson delta) const {
    return Event("content_block_delta", {{"index", num_blocks_ - 1}, {"delta", std::move(delta)}});
  }

  const AnswerHead head_;
  const size_t cached_to_;
  Block open_ = Block::kNone;
  size_t num_blocks_ = 0;
  ChoiceText last_;  // its end
};

}  // namespace

std::unique_ptr<AnswerWriter> NewAnthropicWriter(AnswerHead head, size_t cached_to) {
  return std::make_unique<AnthropicWriter>(std::move(head), cached_to);
}

}  // namespace trellis
