// Ollama's requests -> what a chat or text completion asks for. JSON ends here, as in requests.h.
#pragma once

#include <string_view>
#include <variant>

#include "api/errors.h"
#include "api/requests.h"

namespace trellis {

// POST /api/chat. Without messages it asks for nothing but that the model be there.
ApiResult<ChatRequest> ParseOllamaChat(std::string_view body);
// POST /api/generate: a chat of one message, or of none without a prompt; or, with "raw", a text
// that goes on.
ApiResult<std::variant<ChatRequest, CompletionRequest>> ParseOllamaGenerate(std::string_view body);

// POST /api/embed.
ApiResult<EmbeddingsRequest> ParseOllamaEmbed(std::string_view body);
// POST /api/embeddings, its older form: one text, "prompt".
ApiResult<EmbeddingsRequest> ParseOllamaEmbeddings(std::string_view body);

// What clients call "name:latest" is "name".
std::string WithoutLatest(std::string model);

}  // namespace trellis
