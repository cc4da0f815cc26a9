// Any bytes as a request body: parsing must end, say yes or no, and a no must be valid JSON.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "api/errors.h"
#include "api/json_text.h"
#include "api/requests.h"
#include "base/check.h"

namespace {

using namespace trellis;

void CheckError(const ApiError& error) {
  TRELLIS_CHECK(error.http_status == 400);
  TRELLIS_CHECK(!error.message.empty());
  TRELLIS_CHECK(ParseJson(ErrorBody(error)).ok());
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

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  if (auto chat = ParseChatRequest(body); chat.ok()) {
    TRELLIS_CHECK(!chat.value().messages.empty());
    CheckGeneration(chat.value().generation);
  } else {
    CheckError(chat.error());
  }
  if (auto completion = ParseCompletionRequest(body); completion.ok()) {
    const CompletionRequest& request = completion.value();
    CheckGeneration(request.generation);
    TRELLIS_CHECK(!request.prompts.empty());
    TRELLIS_CHECK(request.prompts.size() * request.generation.num_choices <= kMaxChoices);
  } else {
    CheckError(completion.error());
  }
  if (auto tokenize = ParseTokenizeRequest(body); !tokenize.ok()) CheckError(tokenize.error());
  if (auto detokenize = ParseDetokenizeRequest(body); !detokenize.ok()) {
    CheckError(detokenize.error());
  }
  return 0;
}
