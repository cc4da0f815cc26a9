// OpenAI's responses -> what a chat completion asks for. JSON ends here, as in requests.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"
#include "api/requests.h"

namespace trellis {

struct ResponsesRequest {
  ChatRequest chat;  // messages are those of `input`, without instructions
  std::string instructions;
  std::string previous_id;  // of the response that this one goes on from; empty: none
  bool is_kept = true;      // so that others can go on from it
  // What the answer repeats of the request, and the defaults of what is not in it: a JSON object.
  std::string repeated;
};

// POST /v1/responses. Items that together are one turn of the model (its thoughts, what it said,
// its calls) become one message, so that what it wrote is the same prompt again. Tools that OpenAI
// itself would run (web search, ...) are left out, as llama-server does: the model is not told of
// them.
ApiResult<ResponsesRequest> ParseResponsesRequest(std::string_view body);

}  // namespace trellis
