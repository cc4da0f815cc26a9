// What Ollama's clients ask beside answers: which models there are. Internal to server/.
#pragma once

#include <string>

#include "server/service.h"
#include "server/session.h"

namespace trellis {

Reply OllamaTags(const Service& service);  // GET /api/tags
Reply OllamaPs(const Service& service);    // GET /api/ps
// POST /api/show.
Reply OllamaShow(const std::string& body, const Service& service);

}  // namespace trellis
