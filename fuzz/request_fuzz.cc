// Any bytes as a request body of each path: parsing must end, say yes or no, and a no must be valid
// JSON in the form of its API.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "api/anthropic_requests.h"
#include "api/errors.h"
#include "api/json_text.h"
#include "api/ollama_requests.h"
#include "api/openai_responses.h"
#include "api/requests.h"
#include "base/check.h"

namespace {

using namespace trellis;

void CheckError(const ApiError& error) {
  TRELLIS_CHECK(error.http_status == 400);
  TRELLIS_CHECK(!error.message.empty());
  for (const ErrorForm form : {ErrorForm::kOpenAi, ErrorForm::kAnthropic, ErrorForm::kOllama})
    TRELLIS_CHECK(ParseJson(ErrorBody(error, form)).ok());
}

void CheckGeneration(const GenerationFields& generation) {
  const SamplingFields& sampling = generation.sampling;
  TRELLIS_CHECK(sampling.temperature >= 0 && sampling.top_k >= 0);
  TRELLIS_CHECK(sampling.top_p >= 0 && sampling.top_p <= 1);
  for (const auto& [token, bias] : sampling.logit_bias) {
    TRELLIS_CHECK(token >= 0 && bias >= -100 && bias <= 100);
  }
  for (const auto& stop : generation.stop) TRELLIS_CHECK(!stop.empty());
  TRELLIS_CHECK(generation.num_choices >= 1 && generation.num_choices <= kMaxChoices);
}

void CheckJson(const std::string& text) {
  TRELLIS_CHECK(text.empty() || ParseJson(text).ok());
}

enum class Messages { kSome, kMayBeNone };  // who loads a model says nothing

void CheckChat(const ChatRequest& chat, Messages messages = Messages::kSome) {
  TRELLIS_CHECK(!chat.messages.empty() || messages == Messages::kMayBeNone);
  CheckGeneration(chat.generation);
  CheckJson(chat.tools_json);
  CheckJson(chat.generation.format.json_schema);
  for (const ChatMessage& message : chat.messages) {
    TRELLIS_CHECK(!message.role.empty());
    CheckJson(message.tool_calls_json);
  }
  for (const CacheBreakpoint& breakpoint : chat.generation.breakpoints) {
    TRELLIS_CHECK(breakpoint.num_messages == kWholePrompt ||
                  breakpoint.num_messages <= chat.messages.size());
  }
}

void CheckCompletion(const CompletionRequest& request) {
  CheckGeneration(request.generation);
  TRELLIS_CHECK(!request.prompts.empty() || request.infill);
  TRELLIS_CHECK(request.prompts.size() * request.generation.num_choices <= kMaxChoices);
}

// What `parse` makes of it is checked, or its error.
template <typename Request, typename Check>
void Try(std::string_view body, ApiResult<Request> (*parse)(std::string_view), const Check& check) {
  ApiResult<Request> request = parse(body);
  if (request.ok()) {
    check(request.value());
  } else {
    CheckError(request.error());
  }
}

constexpr auto kNothingMore = [](const auto&) {};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const auto check_chat = [](const ChatRequest& chat) { CheckChat(chat); };
  const auto check_embeddings = [](const EmbeddingsRequest& request) {
    TRELLIS_CHECK(!request.inputs.empty() && request.inputs.size() <= kMaxInputs);
  };
  Try(body, ParseChatRequest, check_chat);
  Try(body, ParseMessagesRequest, check_chat);
  Try(body, ParseCountTokensRequest, check_chat);
  Try(body, ParseResponsesRequest, [](const ResponsesRequest& request) {
    CheckChat(request.chat);
    TRELLIS_CHECK(ParseJson(request.repeated).ok());
  });
  Try(body, ParseOllamaChat,
      [](const ChatRequest& chat) { CheckChat(chat, Messages::kMayBeNone); });
  Try(body, ParseOllamaGenerate, [](const std::variant<ChatRequest, CompletionRequest>& either) {
    if (const auto* chat = std::get_if<ChatRequest>(&either)) {
      CheckChat(*chat, Messages::kMayBeNone);
    } else {
      CheckCompletion(std::get<CompletionRequest>(either));
    }
  });
  Try(body, ParseCompletionRequest, CheckCompletion);
  Try(body, ParseLlamaCompletion, CheckCompletion);
  Try(body, ParseLlamaInfill, CheckCompletion);
  Try(body, ParseEmbeddingsRequest, check_embeddings);
  Try(body, ParseOllamaEmbed, check_embeddings);
  Try(body, ParsePinFields, kNothingMore);
  Try(body, ParseUnpinRequest, kNothingMore);
  Try(body, ParseTokenizeRequest, kNothingMore);
  Try(body, ParseDetokenizeRequest, kNothingMore);
  return 0;
}
