// The fields that chat and text completions share, read from one body. Internal to api/.
#pragma once

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

enum class LogprobsForm { kChat, kCompletion };  // bool + top_logprobs, or one number

void ReadGenerationFields(FieldReader& reader, LogprobsForm form, GenerationFields* out);

}  // namespace trellis
