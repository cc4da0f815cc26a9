// Tools in a chat request, read and checked. Internal to api/.
#pragma once

#include <string>
#include <string_view>

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

// Whether llama.cpp, which keeps the order of members and knows no limits, would take too long with
// `value`: an object has too many members, or the name of one is too long.
bool IsUnwieldy(const Json& value);

// `tools` as JSON text in the client's own order, which the model sees; empty when there are none;
// and which of them the answer may call. `body` is the text that `reader` reads.
void ReadTools(FieldReader& reader, std::string_view body, std::string* tools_json,
               ToolChoice* choice);

// The same of tools as Anthropic's messages and OpenAI's responses have them, with name,
// description and schema side by side; they come out as ReadTools'.
struct FlatTools {
  const char* type;                               // of the tools that the client itself runs
  const char* schema;                             // the member that has it
  enum class Others { kFail, kLeaveOut } others;  // tools that the service would run
};
void ReadFlatTools(FieldReader& reader, std::string_view body, const FlatTools& form,
                   std::string* tools_json);

// Fails where a call is required that there is no tool for; `param` is the field with its name.
void CheckChoice(FieldReader& reader, const std::string& tools_json, const std::string& param,
                 const ToolChoice& choice);

// A message's tool_calls, as JSON text; empty when there are none. `text`: the message as it is
// written: arguments keep the order of their members, in which the model wrote them.
void ReadToolCalls(FieldReader& message, std::string_view text, std::string* tool_calls_json);

// One of them, whose id, name and arguments are side by side.
struct FlatCall {
  const char* id;
  const char* arguments;  // the member that has them
};
void ReadFlatCall(FieldReader& call, std::string_view text, const FlatCall& form, OrderedJson* out);

}  // namespace trellis
