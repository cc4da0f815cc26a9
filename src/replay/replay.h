// Replay: runs a trace through one cache strategy with one budget, and counts.
#pragma once

#include <cstddef>
#include <string>

#include "base/status.h"
#include "replay/trace.h"

namespace trellis {

struct ReplayResult {
  std::string strategy;
  size_t budget_tokens = 0;
  size_t prompt_tokens = 0, hit_tokens = 0;  // of all requests
  size_t peak_tokens = 0;                    // the most that was held at once
  size_t peak_overhead_bytes = 0;            // tree and tables, at most
  double upkeep_us = 0;                      // per request: to match, insert, evict

  size_t recomputed_tokens() const { return prompt_tokens - hit_tokens; }
  double hit_rate() const {
    return static_cast<double>(hit_tokens) / static_cast<double>(prompt_tokens);
  }
};

// Of a prompt that is there whole its last token counts as computed, since a server has to; but not
// for the optimum, which is a bound.
// ERRORS: those of MakeStrategy.
Result<ReplayResult> Replay(const Trace& trace, const std::string& strategy, size_t budget_tokens);

}  // namespace trellis
