#include "engine/request.h"

#include <algorithm>

namespace trellis {

Request::Request(GenerateRequest request, std::shared_ptr<GenerationSink> request_sink,
                 size_t max_new)
    : params{.prompt = {},
             .end_tokens = std::move(request.end_tokens),
             .max_tokens = request.max_tokens,
             .pooling = request.pooling,
             .sampling = std::move(request.sampling),
             .constraint = std::move(request.constraint),
             .scope = std::move(request.scope),
             .wider_scope = std::move(request.wider_scope),
             .client = std::move(request.client),
             .priority = request.priority,
             .cache_priority = request.cache_priority,
             .cache_prompt = request.cache_prompt,
             .retentions = std::move(request.retentions),
             .dropped_if_begins = std::move(request.dropped_if_begins)},
      sink(std::move(request_sink)),
      num_prompt(request.prompt.size()),
      max_new_tokens(max_new),
      tokens(std::move(request.prompt)),
      sampler(params.sampling),
      submitted(Clock::now()) {
  timings.prompt_tokens = num_prompt;
}

bool Request::IsAnswerDropped() const {
  if (!params.dropped_if_begins) return false;
  const std::vector<TokenId>& beginning = *params.dropped_if_begins;
  return std::equal(
      beginning.begin(), beginning.end(), tokens.begin() + static_cast<ptrdiff_t>(num_prompt),
      tokens.begin() +
          static_cast<ptrdiff_t>(std::min(num_known(), num_prompt + beginning.size())));
}

void Request::CountMatched(size_t num_rows) {
  // The last known token is run in any case, for its logits.
  const size_t found = std::min(num_rows, num_known() - 1);
  if (found <= num_counted) return;
  timings.cached_tokens += std::min(found, num_prompt) - std::min(num_counted, num_prompt);
  num_counted = found;
}

void Request::NoteMisses(MissReport report, size_t in_wider_scope) {
  if (!params.cache_prompt) {
    other_cause = MissCause::kDisabled;
    return;
  }
  evicted_begin = report.matched;
  evicted_end = report.matched + report.evicted;
  scope_end = std::max(evicted_end, in_wider_scope);
  other_cause = report.rest_cause;
  if (report.rest == 0 || report.rest_cause != MissCause::kDiverged) return;
  const auto from = tokens.begin() + static_cast<ptrdiff_t>(report.matched);
  const size_t shown = std::min(report.rest, report.instead.size());
  divergence = {.position = report.matched,
                .prompt = {from, from + static_cast<ptrdiff_t>(shown)},
                .cached = std::move(report.instead)};
}

void Request::CountRun(size_t first, size_t num_rows) {
  const size_t end = first + num_rows;
  const size_t first_new = std::clamp(num_counted, first, end);
  timings.recomputed_tokens += first_new - first;
  const size_t begin_computed = std::min(first_new, num_prompt),
               end_computed = std::min(end, num_prompt);
  timings.computed_tokens += end_computed - begin_computed;
  const auto num_between = [&](size_t begin, size_t end_of_part) {
    return std::clamp(end_of_part, begin_computed, end_computed) -
           std::clamp(begin, begin_computed, end_computed);
  };
  const size_t num_evicted = num_between(evicted_begin, evicted_end),
               num_elsewhere = num_between(evicted_end, scope_end);
  timings.missed[MissCause::kEvicted] += num_evicted;
  timings.missed[MissCause::kScope] += num_elsewhere;
  timings.missed[other_cause] += end_computed - begin_computed - num_evicted - num_elsewhere;
  num_counted = std::max(num_counted, end);
}

}  // namespace trellis
