// What an answer's text may be: response_format, json_schema, grammar. Internal to api/.
#pragma once

#include <string>
#include <string_view>

#include "api/field_reader.h"
#include "api/requests.h"

namespace trellis {

// `body` is the text that `reader` reads: the order of a schema's members is that of the answer's.
void ReadFormat(FieldReader& reader, std::string_view body, TextFormat* out);

// Any JSON object, as the field `param` asks for.
void TakeAnyObject(const std::string& param, TextFormat* out);

// A JSON schema: `value`, and its text.
void ReadSchema(FieldReader& reader, const std::string& param, const Json& value,
                std::string_view text, TextFormat* out);

// {"type", "schema"} side by side, as OpenAI's responses and Anthropic's messages have them:
// `value` is the field `param`, and `text` as it is written.
void ReadFlatFormat(FieldReader& reader, const std::string& param, const Json& value,
                    std::string_view text, TextFormat* out);

}  // namespace trellis
