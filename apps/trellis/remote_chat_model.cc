#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "api/json_text.h"
#include "chat_model.h"
#include "hub/http_client.h"
#include "hub/patience.h"

namespace trellis {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

// A string member; empty if it is not there.
std::string Text(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

size_t Count(const Json& object, const Json::json_pointer& path) {
  if (!object.contains(path) || !object[path].is_number_unsigned()) return 0;
  return object[path].get<size_t>();
}

OrderedJson RequestBody(const std::string& model, const std::vector<ChatMessage>& messages,
                        const GenerationOptions& options) {
  OrderedJson body = {{"model", model},
                      {"messages", OrderedJson::array()},
                      {"stream", true},
                      {"stream_options", {{"include_usage", true}}}};
  for (const ChatMessage& message : messages) {
    body["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  const GenerationOptions defaults;
  const auto add = [&body](const char* name, const auto& value, const auto& usual) {
    if (value != usual) body[name] = value;
  };
  const SamplingParams &s = options.sampling, &d = defaults.sampling;
  add("max_tokens", options.max_tokens, defaults.max_tokens);
  add("seed", options.seed, defaults.seed);
  add("temperature", s.temperature, d.temperature);
  add("top_k", s.top_k, d.top_k);
  add("top_p", s.top_p, d.top_p);
  add("min_p", s.min_p, d.min_p);
  add("typical_p", s.typical_p, d.typical_p);
  add("repeat_penalty", s.repetition_penalty, d.repetition_penalty);
  add("presence_penalty", s.presence_penalty, d.presence_penalty);
  add("frequency_penalty", s.frequency_penalty, d.frequency_penalty);
  add("repeat_last_n", s.penalty_last_n, d.penalty_last_n);
  return body;
}

// Server-sent events -> the listener.
class EventReader {
 public:
  explicit EventReader(const ChatListener& listener) : listener_(listener) {}

  // ERRORS: kCancelled: the listener wants no more; what an error event says; kDataLoss.
  Status Push(std::string_view bytes) {
    pending_ += bytes;
    size_t begin = 0;
    for (size_t end; (end = pending_.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string_view line(pending_.data() + begin, end - begin);
      if (line.ends_with('\r')) line.remove_suffix(1);
      if (!line.starts_with("data:")) continue;
      line.remove_prefix(line.starts_with("data: ") ? 6 : 5);
      if (line != "[DONE]") TRELLIS_RETURN_IF_ERROR(Event(line));
    }
    pending_.erase(0, begin);
    return listener_.is_stopped() ? Status(StatusCode::kCancelled, "stopped") : Status::Ok();
  }

  GenerationStats Stats() const {
    const Clock::time_point now = Clock::now(), first = first_.value_or(now);
    GenerationStats stats = usage_;
    if (stats.generated_tokens == 0) stats.generated_tokens = num_pieces_;  // it told no usage
    stats.first_token_seconds = Seconds(first - start_);
    stats.rest_seconds = Seconds(now - first);
    return stats;
  }

 private:
  Status Event(std::string_view text) {
    auto json = ParseJson(text);
    if (!json.ok() || !json.value().is_object()) {
      return Status(StatusCode::kDataLoss,
                    "the server's stream has an event that is no JSON object");
    }
    const Json& event = json.value();
    if (const auto error = event.find("error"); error != event.end()) {
      const std::string words = error->is_object() ? Text(*error, "message") : error->dump();
      return Status(StatusCode::kUnavailable, "the server: " + words);
    }
    if (const auto usage = event.find("usage"); usage != event.end() && usage->is_object()) {
      usage_.prompt_tokens = Count(*usage, Json::json_pointer("/prompt_tokens"));
      usage_.generated_tokens = Count(*usage, Json::json_pointer("/completion_tokens"));
      usage_.cached_tokens =
          std::min(usage_.prompt_tokens,
                   Count(*usage, Json::json_pointer("/prompt_tokens_details/cached_tokens")));
    }
    const Json::json_pointer delta("/choices/0/delta");
    if (!event.contains(delta) || !event[delta].is_object()) return Status::Ok();
    Give(Text(event[delta], "reasoning_content"), listener_.on_thought);
    Give(Text(event[delta], "content"), listener_.on_text);
    return Status::Ok();
  }

  void Give(const std::string& text, const std::function<void(std::string_view)>& to) {
    if (text.empty()) return;
    if (!first_) first_ = Clock::now();
    num_pieces_++;
    to(text);
  }

  const ChatListener& listener_;
  const Clock::time_point start_ = Clock::now();
  std::optional<Clock::time_point> first_;
  std::string pending_;  // the beginning of a line
  GenerationStats usage_;
  size_t num_pieces_ = 0;
};

class RemoteChatModel : public ChatModel {
 public:
  RemoteChatModel(std::string url, std::string api_key, std::string model)
      : url_(std::move(url)), api_key_(std::move(api_key)), model_(std::move(model)) {}

  // Asks for the models, also to see whether somebody is there and takes the key.
  Status Connect() {
    TRELLIS_ASSIGN_OR_RETURN(const HttpClient::Answer answer,
                             client_.Send({.url = url_ + "/v1/models",
                                           .token = api_key_,
                                           .longest_silence = std::chrono::seconds(30)}));
    if (!answer.ok()) return ErrorOf(answer);
    if (!model_.empty()) return Status::Ok();
    auto json = ParseJson(answer.body);
    const Json::json_pointer first("/data/0/id");
    if (!json.ok() || !json.value().contains(first) || !json.value()[first].is_string()) {
      return Status(StatusCode::kNotFound,
                    fmt::format("{}/v1/models lists no model: name one with -m", url_));
    }
    model_ = json.value()[first].get<std::string>();
    return Status::Ok();
  }

  const std::string& name() const override { return model_; }

  Result<GenerationStats> Answer(const std::vector<ChatMessage>& messages,
                                 const GenerationOptions& options,
                                 const ChatListener& listener) override {
    EventReader events(listener);
    const auto answer =
        client_.Send({.method = HttpClient::Method::kPost,
                      .url = url_ + "/v1/chat/completions",
                      .token = api_key_,
                      .json = ToText(RequestBody(model_, messages, options)),
                      .is_cancelled = listener.is_stopped,
                      .on_body = [&](const HttpClient::Answer&, std::string_view bytes) {
                        return events.Push(bytes);
                      }});
    GenerationStats stats = events.Stats();
    if (!answer.ok() && answer.status().code() == StatusCode::kCancelled) {
      stats.was_stopped = true;
      return stats;
    }
    if (!answer.ok()) return answer.status();
    if (!answer->ok()) return ErrorOf(*answer);
    return stats;
  }

 private:
  const std::string url_, api_key_;
  std::string model_;
  HttpClient client_;
};

}  // namespace

Result<std::unique_ptr<ChatModel>> ConnectChatModel(const std::string& url,
                                                    const std::string& api_key,
                                                    const std::string& model) {
  std::string base = url;
  while (base.ends_with('/')) base.pop_back();
  if (base.ends_with("/v1")) base.resize(base.size() - 3);  // as OpenAI's clients write it
  auto remote = std::make_unique<RemoteChatModel>(base, api_key, model);
  TRELLIS_RETURN_IF_ERROR(remote->Connect());
  return std::unique_ptr<ChatModel>(std::move(remote));
}

}  // namespace trellis
