// What has to be known of a request before the model is there that reads all of it: which one is
// meant, and whether somebody waits for a stream. The body is read no further than to the field.
// Pure functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "api/errors.h"

namespace trellis {

// The body's field "model"; empty where there is none, and for a body that is empty or null.
// ERRORS: 400: it is no string, or the body is no JSON object up to there.
ApiResult<std::string> ModelNamedIn(std::string_view body);

// Whether the body's field "stream" is true. Nothing is said of what is wrong.
bool AsksForStream(std::string_view body);

}  // namespace trellis
