// Plan: which rows of which requests the next step computes. Plain data in, plain data out.
//
//   step = one row of every request that needs just one for its next token (decoding)
//        + chunks of the prompts, oldest first, as far as the token budget goes
//
// Results never depend on where a chunk ends (model/model.h), so a plan is about time alone.
#pragma once

#include <cstddef>
#include <vector>

#include "base/types.h"

namespace trellis {

struct Limits {
  size_t step_tokens = 512;        // rows of a step
  size_t mixed_step_tokens = 128;  // rows of a step in which somebody decodes
  size_t max_running = 64;         // requests that hold a lease
};

// A request that holds a lease and frames for all its tokens.
struct RunningView {
  RequestId id;
  size_t num_tokens = 0;  // prompt and generated: all must be in the cache before the next token
  size_t num_rows = 0;  // of these, in the cache. If all are, the last is run again for its logits
};

struct Snapshot {
  std::vector<RunningView> running;  // oldest first
};

enum class Logits { kNone, kLastRow };

// Rows [first_row, first_row + num_rows) of one request.
struct PlannedRows {
  RequestId id;
  size_t index = 0;  // in Snapshot::running
  size_t first_row = 0;
  size_t num_rows = 0;  // at least 1
  Logits logits = Logits::kNone;

  friend bool operator==(const PlannedRows&, const PlannedRows&) = default;
};

struct BatchPlan {
  std::vector<PlannedRows> rows;  // decoding requests, then chunks; a request appears at most once
  size_t num_rows = 0;            // in all
};

// Rows that `request` needs before its next token: at least 1.
size_t RemainingRows(const RunningView& request);

// Every decoding request gets its row, whatever the budget; prompts get the rest of the budget, but
// together never less than a page's worth, so neither starves the other. The oldest request always
// progresses. REQUIRES: num_tokens >= 1, num_rows <= num_tokens of each. COST: O(running).
BatchPlan Plan(const Snapshot& snapshot, const Limits& limits);

}  // namespace trellis
