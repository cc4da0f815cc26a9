// Precedence: which request goes first, to be admitted or to get rows of a step, and which one
// makes room. Pure functions of plain data.
//
//   between tenants    by share, then locality
//   inside a tenant    by priority, then the session's share, then who is overdue, then locality
//
// By share: who lags by kMostLag quanta (sched/fair_share.h), then everybody else, then who leads
// by a quantum. Locality is the longest cached prefix where a request is to be admitted, and the
// fewest rows left where a prompt is to be computed; then age decides.
//
// BOUND. Nobody waits for ever for others' locality: with N tenants at work and S sessions in its
// own, a request is in front of everything that came after it, but for its session's share and what
// its tenant gave a smaller priority, by the time that N * S * kMostLag quanta were computed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/types.h"

namespace trellis {

// Who leads by so many tokens lets others go first.
struct Quantum {
  int64_t tokens = 2048;
};

// In quanta: a client that lags by so much, and a request that others of its own session have
// overtaken with so many tokens (it is overdue), have waited long enough for others' locality.
inline constexpr int64_t kMostLag = 4;

// Where a request stands between all others.
struct Standing {
  size_t tenant = 0;                          // equal for requests of one tenant
  int64_t tenant_lead = 0, session_lead = 0;  // tokens
  int32_t priority = 0;                       // smaller is served first, as vLLM's
  enum class Due { kInTime, kOverdue } due = Due::kInTime;
  size_t num_preemptions = 0;
};

// The standing of one that has to do what another waits for, too. Of one tenant: of each the more
// urgent part. Of two: that of the other, unless its tenant has less claim, by share.
Standing MoreUrgent(const Standing& own, const Standing& other, Quantum quantum);

struct Claim {
  RequestId id;  // ids are ages: smaller is older
  Standing standing;
  size_t locality = 0;  // larger goes first
};

// The index of the one that goes first. REQUIRES: not empty. COST: O(claims * tenants).
size_t First(std::span<const Claim> claims, Quantum quantum);

// Of those that run, the one to be preempted so that `claim` can have its place. One of the same
// tenant whose priority is larger: the youngest of the largest. Else the youngest of the tenant
// (the session, where the tenant is the same) that leads the claim's by most, if that is two
// quanta; twice as many for each time that it was preempted before, so that two that do not fit
// together cannot throw each other out for ever.
std::optional<size_t> WhoMakesRoom(const Claim& claim, std::span<const Claim> running,
                                   Quantum quantum);

// The one to be preempted when those that run have outgrown the memory: who makes room for the one
// that leads least; if nobody has to, the youngest or, of the same tenant, one whose priority is
// larger yet. The oldest of the smallest priority is so chosen only if it leads. REQUIRES: not
// empty.
size_t WhoIsPreempted(std::span<const Claim> running, Quantum quantum);

}  // namespace trellis
