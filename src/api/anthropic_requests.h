// Anthropic's messages -> what a chat completion asks for. JSON ends here, as in requests.h.
#pragma once

#include <string_view>

#include "api/errors.h"
#include "api/requests.h"

namespace trellis {

// POST /v1/messages. A tool's result becomes a message of the role "tool", as OpenAI's clients send
// it; a prompt written in either API is the same tokens, and shares its cached pages.
ApiResult<ChatRequest> ParseMessagesRequest(std::string_view body);
// POST /v1/messages/count_tokens: the same without max_tokens.
ApiResult<ChatRequest> ParseCountTokensRequest(std::string_view body);

}  // namespace trellis
