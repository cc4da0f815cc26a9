#include "replay/replay.h"

#include <algorithm>
#include <chrono>

#include "replay/strategy.h"

namespace trellis {

Result<ReplayResult> Replay(const Trace& trace, const std::string& strategy, size_t budget_tokens) {
  TRELLIS_ASSIGN_OR_RETURN(const auto cache, MakeStrategy(strategy, trace, budget_tokens));
  ReplayResult result{.strategy = strategy, .budget_tokens = budget_tokens};
  std::vector<TokenId> tokens;
  std::chrono::steady_clock::duration took{};
  for (size_t i = 0; i < trace.requests.size(); i++) {
    trace.WriteTokens(trace.requests[i], tokens);
    const auto start = std::chrono::steady_clock::now();
    const size_t hits = cache->Serve(i, tokens);
    took += std::chrono::steady_clock::now() - start;
    result.prompt_tokens += tokens.size();
    result.hit_tokens += strategy == "optimum" ? hits : std::min(hits, tokens.size() - 1);
    result.peak_tokens = std::max(result.peak_tokens, cache->held_tokens());
    result.peak_overhead_bytes = std::max(result.peak_overhead_bytes, cache->overhead_bytes());
  }
  result.upkeep_us = std::chrono::duration<double, std::micro>(took).count() /
                     static_cast<double>(trace.requests.size());
  return result;
}

}  // namespace trellis
