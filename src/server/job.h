// Job: what a request for an answer asks for, in the engine's terms. Internal to server/.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/answer_writer.h"
#include "api/requests.h"
#include "api/responses.h"
#include "engine/engine.h"
#include "server/response_store.h"
#include "server/service.h"
#include "text/grammar.h"

namespace trellis {

// Of one prompt.
struct JobPrompt {
  std::vector<TokenId> tokens;
  std::string echo = {};  // text that its answers start with
  std::vector<Retention> retentions = {};
};

// How /v1/embeddings and /api/embed are answered.
enum class EmbeddingsForm { kFloats, kBase64, kOllama };

struct Job {
  enum class Purpose {
    kAnswer,
    kWarm,  // computes the prompts, at the lowest priority
    kPin,   // and keeps them cached for a time
    kEmbed,
  };
  Purpose purpose = Purpose::kAnswer;
  AnswerHead head;
  std::unique_ptr<AnswerWriter> writer = {};  // for kAnswer
  EmbeddingsForm embeddings_form = {};        // for kEmbed
  GenerationFields fields;
  std::vector<JobPrompt> prompts;  // none: only the model was to be loaded, as Ollama's clients ask
  std::vector<std::string> template_stops = {};  // beside the client's own
  // Of all answers: what they may be, and how they are written (ChatPrompt's).
  std::shared_ptr<const Grammar> grammar = {};
  std::shared_ptr<const AnswerFormat> answer_format = std::make_shared<const AnswerFormat>();
  std::optional<std::vector<TokenId>> dropped_if_begins = {};  // as GenerateRequest's
  // The chat so far, if with its answer it is to stay among the responses.
  std::optional<std::vector<ChatMessage>> kept_chat = {};

  // Strings that end an answer: the client's and the template's.
  std::vector<std::string> stops() const {
    std::vector<std::string> all = fields.stop;
    all.insert(all.end(), template_stops.begin(), template_stops.end());
    return all;
  }
  // Answers that are computed for each prompt, of which fields.num_choices are given.
  size_t num_samples() const { return std::max(fields.num_choices, fields.best_of); }
  bool ranks_samples() const { return num_samples() > fields.num_choices; }
};

// Parses, renders and tokenizes. `path`: of the route that the body was sent to. `owner`: of the
// responses that it may go on from. `service`: of the model that the body names.
ApiResult<Job> MakeJob(std::string_view path, const std::string& body, const std::string& owner,
                       const Service& service, ResponseStore& responses);
// For what is to be said in an answer to `path` before there is a job; null where answers are never
// streamed.
std::unique_ptr<AnswerWriter> WriterFor(std::string_view path);
// The prompt that /v1/chat/completions would make of `body`, as text.
ApiResult<std::string> ChatPromptText(const std::string& body, const Service& service);
// Of the prompt that /v1/messages would make of `body`.
ApiResult<size_t> CountPromptTokens(const std::string& body, const Service& service);

}  // namespace trellis
