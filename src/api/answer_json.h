// Parts of answers that several APIs have, as JSON. Internal to api/.
#pragma once

#include <vector>

#include "api/json_text.h"
#include "api/responses.h"

namespace trellis {

// llama-server's `timings`, with ours.
OrderedJson TimingsJson(const Timings& timings);
// Its `prompt_progress`.
OrderedJson ProgressJson(const PromptProgressFields& progress);

// An entry for each token, with its "top_logprobs": as OpenAI's chats and Ollama have them.
OrderedJson LogprobsJson(const std::vector<LogprobEntry>& entries);

}  // namespace trellis
