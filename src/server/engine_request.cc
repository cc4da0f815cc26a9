#include "server/engine_request.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

namespace trellis {
namespace {

SamplingParams ToParams(const SamplingFields& f, uint64_t seed) {
  SamplingParams p;
  p.temperature = f.temperature, p.top_k = f.top_k, p.top_p = f.top_p, p.min_p = f.min_p,
  p.typical_p = f.typical_p;
  p.repetition_penalty = f.repetition_penalty, p.presence_penalty = f.presence_penalty;
  p.frequency_penalty = f.frequency_penalty, p.penalty_last_n = f.penalty_last_n;
  p.logit_bias = f.logit_bias, p.num_logprobs = f.num_logprobs;
  p.seed = seed;
  return p;
}

// Who shares evenly with others of the same key. What is not named is a client for each
// connection; the first letter keeps the kinds of names apart.
std::string SessionName(const GenerationFields& fields, const HttpRequest& request,
                        const Caller& caller) {
  if (!fields.user.empty()) return "u" + fields.user;
  if (!fields.prompt_cache_key.empty()) return "p" + fields.prompt_cache_key;
  constexpr size_t kMaxBytes = 256;  // as of the fields
  const auto header = request["x-session-id"];
  if (!header.empty()) return "h" + std::string(header.data(), std::min(header.size(), kMaxBytes));
  return "c" + std::to_string(caller.connection);
}

}  // namespace

GenerateRequest EngineRequest(const Job& job, size_t prompt, size_t sample,
                              const HttpRequest& http_request, const Caller& caller,
                              const Service& service) {
  const GenerationFields& fields = job.fields;
  GenerateRequest request;
  request.prompt = job.prompts[prompt].tokens;
  // Where the grammar ends nothing else can follow.
  const bool is_held = job.grammar != nullptr && job.grammar->HoldsFromStart();
  if (!fields.ignore_eos || is_held) request.end_tokens = service.end_tokens;
  if (job.grammar != nullptr) request.constraint = std::make_shared<GrammarState>(job.grammar);
  // The engine knows no prompt without an answer.
  request.max_tokens = fields.only_prompt ? 1 : fields.max_tokens;
  if (job.purpose == Job::Purpose::kEmbed) request.pooling = service.model->spec().pooling;
  request.sampling = ToParams(fields.sampling, static_cast<uint64_t>(job.head.seed) + sample);
  if (job.ranks_samples())
    request.sampling.num_logprobs = std::max(0, request.sampling.num_logprobs);
  service.BanSuppressed(&request.sampling);
  request.scope = caller.ScopeOf(fields.cache_salt);
  if (!fields.cache_salt.empty()) request.wider_scope = caller.ScopeOf("");
  request.client = {.tenant = caller.tenant(),
                    .session = SessionName(fields, http_request, caller)};
  // What is computed ahead of time waits for everything else of its key.
  const bool is_ahead = job.purpose == Job::Purpose::kWarm || job.purpose == Job::Purpose::kPin;
  request.priority = is_ahead ? std::numeric_limits<int32_t>::max() : fields.priority;
  request.cache_priority = fields.priority;
  request.cache_prompt = fields.cache_prompt;
  if (sample == 0) request.retentions = job.prompts[prompt].retentions;
  request.dropped_if_begins = job.dropped_if_begins;
  return request;
}

}  // namespace trellis
