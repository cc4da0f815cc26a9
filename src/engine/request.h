// Request: what the engine keeps of one GenerateRequest from Submit to OnFinish.
//
//   waiting --Admit--> running: prefill -> decode --> finished
//      ^                  |
//      +----preempted-----+
//
// "Known" tokens are the prompt and what was sampled so far. The last sampled token has no row
// until it is fed, so a decoding request has one row less than it knows tokens.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/types.h"
#include "engine/engine.h"
#include "kv/page_cache.h"
#include "sample/sampler.h"
#include "sched/fair_share.h"

namespace trellis {

struct Request {
  using Clock = std::chrono::steady_clock;

  // Moves the prompt out of `request`. `max_new_tokens` is at least 1. The id comes later.
  Request(GenerateRequest request, std::shared_ptr<GenerationSink> sink, size_t max_new_tokens);

  size_t num_known() const { return tokens.size(); }
  size_t num_generated() const { return timings.generated_tokens; }

  // Whether the next turn will have nothing of what was generated: params.dropped_if_begins.
  bool IsAnswerDropped() const;

  // What the cache says of the prompt when it is admitted the first time.
  // `in_wider_scope`: how many of its tokens are in params.wider_scope.
  void NoteMisses(MissReport report, size_t in_wider_scope);
  // `num_rows` of the tokens were found in the cache; of these, what was never counted is `cached`.
  void CountMatched(size_t num_rows);
  // Rows [first, first + num_rows) were run.
  void CountRun(size_t first, size_t num_rows);

  RequestId id;
  const GenerateRequest params;  // but for the prompt
  const std::shared_ptr<GenerationSink> sink;
  const size_t num_prompt;
  const size_t max_new_tokens;

  std::vector<TokenId> tokens;  // known tokens
  Sampler sampler;
  Lease lease;  // while running
  // For params.pooling: the sum of hidden states of the rows below num_summed.
  std::vector<float> hidden_sum;
  size_t num_summed = 0;
  size_t num_preemptions = 0;
  FairShare::Member member;
  uint64_t session_service = 0;  // of its session, when it came
  uint64_t num_charged = 0;      // of what its session had since, what was for itself
  // Rows below it were matched or run before: to run one of them again is recomputation.
  size_t num_counted = 0;
  // Prompt rows [evicted_begin, evicted_end) were there once, those up to scope_end are in another
  // scope; why all others are run.
  size_t evicted_begin = 0, evicted_end = 0, scope_end = 0;
  MissCause other_cause = MissCause::kNewTokens;
  std::optional<Divergence> divergence;  // in the timings when it ends
  GenerateTimings timings;
  Clock::time_point submitted, admitted, first_token;
};

}  // namespace trellis
