#include "sched/plan.h"

#include <algorithm>

#include "base/check.h"

namespace trellis {
namespace {

PlannedRows Take(const RunningView& request, size_t index, size_t num_rows) {
  const size_t remaining = RemainingRows(request);
  return {.id = request.id,
          .index = index,
          .first_row = request.num_tokens - remaining,
          .num_rows = num_rows,
          .logits = num_rows == remaining ? Logits::kLastRow : Logits::kNone};
}

}  // namespace

size_t RemainingRows(const RunningView& request) {
  TRELLIS_CHECK(request.num_tokens > 0 && request.num_rows <= request.num_tokens);
  return std::max<size_t>(request.num_tokens - request.num_rows, 1);
}

BatchPlan Plan(const Snapshot& snapshot, const Limits& limits) {
  BatchPlan plan;
  for (size_t i = 0; i < snapshot.running.size(); i++) {
    if (RemainingRows(snapshot.running[i]) == 1) {
      plan.rows.push_back(Take(snapshot.running[i], i, 1));
    }
  }
  plan.num_rows = plan.rows.size();

  std::vector<Claim> claims;
  std::vector<size_t> indices;  // of claims, in running
  for (size_t i = 0; i < snapshot.running.size(); i++) {
    const RunningView& request = snapshot.running[i];
    const size_t remaining = RemainingRows(request);
    if (remaining == 1) continue;
    claims.push_back({.id = request.id, .standing = request.standing, .locality = ~remaining});
    indices.push_back(i);
  }
  const size_t budget = plan.rows.empty() ? limits.step_tokens : limits.mixed_step_tokens;
  size_t left = std::max(budget - std::min(budget, plan.num_rows), kLeastChunk);
  while (!claims.empty() && left > 0) {
    const size_t first = First(claims, limits.quantum);
    const size_t index = indices[first];
    const size_t take = std::min(RemainingRows(snapshot.running[index]), left);
    plan.rows.push_back(Take(snapshot.running[index], index, take));
    plan.num_rows += take;
    left -= take;
    claims.erase(claims.begin() + static_cast<ptrdiff_t>(first));
    indices.erase(indices.begin() + static_cast<ptrdiff_t>(first));
  }
  return plan;
}

}  // namespace trellis
