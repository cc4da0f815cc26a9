// Tools in a chat request, read and checked. Internal to api/.
#pragma once

#include <string>
#include <string_view>

#include "api/field_reader.h"

namespace trellis {

// `tools` as JSON text in the client's own order, which the model sees; empty when there are none.
// Also looks at tool_choice and parallel_tool_calls. `body` is the text that `reader` reads.
void ReadTools(FieldReader& reader, std::string_view body, std::string* tools_json);

// A message's tool_calls, as JSON text; empty when there are none.
void ReadToolCalls(FieldReader& message, std::string* tool_calls_json);

}  // namespace trellis
