// The fields that chat and text completions share, read from one body. Internal to api/.
#pragma once

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

enum class LogprobsForm { kChat, kCompletion };  // bool + top_logprobs, or one number

// Parts of it that other APIs have too.
void ReadSampling(FieldReader& reader, SamplingFields* out);
void ReadSeed(FieldReader& reader, std::optional<int64_t>* out);
// Stop strings are in `name`.
void ReadStop(FieldReader& reader, const char* name, std::vector<std::string>* out);
// Up to 256 bytes, which stay in memory with what is kept under them.
void ReadName(FieldReader& reader, const char* name, std::string* out);

// As a chat has them, `logprobs` and `top_logprobs`, or as a text completion.
void ReadLogprobs(FieldReader& reader, LogprobsForm form, SamplingFields* out);
// Fails where a field would change the meaning of an answer and cannot be honoured here.
void RefuseUnsupported(FieldReader& reader);

// How the cache and the queue are used: cache_prompt, cache_report, cache_salt, priority.
void ReadCacheUse(FieldReader& reader, GenerationFields* out);

// `body` is the text that `reader` reads.
void ReadGenerationFields(FieldReader& reader, std::string_view body, LogprobsForm form,
                          GenerationFields* out);

}  // namespace trellis
