// What a request says about how long its prompt stays cached: Anthropic's cache_control, OpenAI's
// prompt_cache_retention, and the ttl of /v1/cache/pin. Internal to api/, but for the structs.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

// Anthropic takes as many in a request.
inline constexpr size_t kMaxBreakpoints = 4;

// Reads object.cache_control: {"type": "ephemeral", "ttl": "5m" or "1h"}, 5m if it does not say.
// `messages`: those up to and including the one that the object belongs to.
void ReadCacheControl(FieldReader& object, size_t messages, std::vector<CacheBreakpoint>* out);

// The body's own fields, which are about the whole prompt: cache_control and
// prompt_cache_retention.
void ReadWholePromptRetention(FieldReader& body, std::vector<CacheBreakpoint>* out);

}  // namespace trellis
