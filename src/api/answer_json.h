// Parts of answers that several APIs have, as JSON. Internal to api/.
#pragma once

#include "api/json_text.h"
#include "api/responses.h"

namespace trellis {

// llama-server's `timings`, with ours.
OrderedJson TimingsJson(const Timings& timings);
// Its `prompt_progress`.
OrderedJson ProgressJson(const PromptProgressFields& progress);

}  // namespace trellis
