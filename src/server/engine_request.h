// What the engine is asked for one sample of one of a Job's prompts. Internal to server/.
#pragma once

#include <cstddef>

#include "engine/engine.h"
#include "server/job.h"
#include "server/service.h"
#include "server/session.h"

namespace trellis {

// REQUIRES: prompt < job.prompts.size(), sample < job.num_samples().
GenerateRequest EngineRequest(const Job& job, size_t prompt, size_t sample,
                              const HttpRequest& http_request, const Caller& caller,
                              const Service& service);

}  // namespace trellis
