// Plan: which rows of which requests the next step computes. Plain data in, plain data out.
//
//   step = one row of every request that needs just one for its next token (decoding)
//        + chunks of the prompts, in their order of precedence (sched/precedence.h), fewest rows
//          left first, as far as the token budget goes
//
// Results never depend on where a chunk ends (model/model.h), so a plan is about time alone.
#pragma once

#include <cstddef>
#include <vector>

#include "base/types.h"
#include "sched/precedence.h"

namespace trellis {

// The least that the prompts get of a step, together: so they progress, however many decode and
// however slow the machine is. Up to so many rows cost little more than one, since the weights are
// what has to be read.
inline constexpr size_t kLeastChunk = 16;

struct Limits {
  size_t step_tokens = 512;        // rows of a step
  size_t mixed_step_tokens = 128;  // rows of a step in which somebody decodes
  size_t max_running = 64;         // requests that hold a lease
  Quantum quantum = {};
};

// A request that holds a lease and frames for all its tokens.
struct RunningView {
  RequestId id;
  size_t num_tokens = 0;  // prompt and generated: all must be in the cache before the next token
  size_t num_rows = 0;  // of these, in the cache. If all are, the last is run again for its logits
  Standing standing = {};
};

struct Snapshot {
  std::vector<RunningView> running;
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
// together never less than kLeastChunk, so neither starves the other. REQUIRES: num_tokens >= 1,
// num_rows <= num_tokens of each. COST: O(running * prompts that get rows).
BatchPlan Plan(const Snapshot& snapshot, const Limits& limits);

}  // namespace trellis
