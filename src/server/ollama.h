// What Ollama's clients ask beside answers: which models there are. Internal to server/.
#pragma once

#include <string>

#include "server/model_pool.h"
#include "server/session.h"

namespace trellis {

Reply OllamaTags(ModelPool& models);  // GET /api/tags
Reply OllamaPs(ModelPool& models);    // GET /api/ps
// POST /api/show.
Reply OllamaShow(const std::string& body, ModelPool& models);

}  // namespace trellis
