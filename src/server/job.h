// Job: what a request for an answer asks for, in the engine's terms. Internal to server/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/requests.h"
#include "api/responses.h"
#include "engine/engine.h"
#include "server/service.h"

namespace trellis {

// Of one prompt.
struct JobPrompt {
  std::vector<TokenId> tokens;
  std::string echo = {};  // text that its answers start with
  std::vector<Retention> retentions = {};
};

struct Job {
  enum class Purpose {
    kAnswer,
    kWarm,  // computes the prompts, at the lowest priority
    kPin,   // and keeps them cached for a time
  };
  Purpose purpose = Purpose::kAnswer;
  AnswerHead head;
  GenerationFields fields;
  std::vector<JobPrompt> prompts;
  std::optional<std::vector<TokenId>> dropped_if_begins = {};  // as GenerateRequest's
};

// Parses, renders and tokenizes. `path`: of the route that the body was sent to.
ApiResult<Job> MakeJob(std::string_view path, const std::string& body, const Service& service);

}  // namespace trellis
