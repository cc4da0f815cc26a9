// Fields of a chat's message that several APIs have. Internal to api/; in requests.cc.
#pragma once

#include <string>

#include "api/field_reader.h"

namespace trellis {

// system, user, assistant or tool; OpenAI's newer "developer" comes as system.
void ReadRole(FieldReader& reader, std::string* out);

}  // namespace trellis
