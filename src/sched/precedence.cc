#include "sched/precedence.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "base/check.h"

namespace trellis {
namespace {

// Smaller goes first.
int ByShare(int64_t lead, Quantum quantum) {
  if (lead <= -kMostLag * quantum.tokens) return 0;
  return lead < quantum.tokens ? 1 : 2;
}

auto PlaceInTenant(const Claim& claim, Quantum quantum) {
  return std::tuple(claim.standing.priority, ByShare(claim.standing.session_lead, quantum),
                    claim.standing.due == Standing::Due::kInTime, ~claim.locality, claim.id);
}

auto PlaceOfTenant(const Claim& claim, Quantum quantum) {
  return std::tuple(ByShare(claim.standing.tenant_lead, quantum), ~claim.locality, claim.id);
}

int64_t Gap(const Claim& ahead, const Claim& behind) {
  return ahead.standing.tenant != behind.standing.tenant
             ? ahead.standing.tenant_lead - behind.standing.tenant_lead
             : ahead.standing.session_lead - behind.standing.session_lead;
}

}  // namespace

Standing MoreUrgent(const Standing& own, const Standing& other, Quantum quantum) {
  if (own.tenant != other.tenant) {
    return ByShare(other.tenant_lead, quantum) <= ByShare(own.tenant_lead, quantum) ? other : own;
  }
  Standing both = own;
  both.priority = std::min(own.priority, other.priority);
  both.session_lead = std::min(own.session_lead, other.session_lead);
  both.due = std::max(own.due, other.due);
  return both;
}

size_t First(std::span<const Claim> claims, Quantum quantum) {
  TRELLIS_CHECK(!claims.empty());
  std::vector<size_t> best;  // of each tenant
  for (size_t i = 0; i < claims.size(); i++) {
    const auto same = std::find_if(best.begin(), best.end(), [&](size_t other) {
      return claims[other].standing.tenant == claims[i].standing.tenant;
    });
    if (same == best.end()) {
      best.push_back(i);
    } else if (PlaceInTenant(claims[i], quantum) < PlaceInTenant(claims[*same], quantum)) {
      *same = i;
    }
  }
  return *std::min_element(best.begin(), best.end(), [&](size_t a, size_t b) {
    return PlaceOfTenant(claims[a], quantum) < PlaceOfTenant(claims[b], quantum);
  });
}

std::optional<size_t> WhoMakesRoom(const Claim& claim, std::span<const Claim> running,
                                   Quantum quantum) {
  const auto is_less_urgent = [&](const Claim& other) {
    return other.standing.tenant == claim.standing.tenant &&
           other.standing.priority > claim.standing.priority;
  };
  // Larger makes room first.
  const auto place = [&](const Claim& other) {
    const bool less_urgent = is_less_urgent(other);
    return std::tuple(less_urgent, less_urgent ? other.standing.priority : Gap(other, claim),
                      other.id);
  };
  std::optional<size_t> chosen;
  for (size_t i = 0; i < running.size(); i++) {
    const size_t doublings = std::min<size_t>(running[i].standing.num_preemptions, 30);
    const bool is_more_urgent = running[i].standing.tenant == claim.standing.tenant &&
                                running[i].standing.priority < claim.standing.priority;
    const bool leads = !is_more_urgent && Gap(running[i], claim) >= (2 * quantum.tokens)
                                                                        << doublings;
    if (!leads && !is_less_urgent(running[i])) continue;
    if (!chosen || place(running[i]) > place(running[*chosen])) chosen = i;
  }
  return chosen;
}

size_t WhoIsPreempted(std::span<const Claim> running, Quantum quantum) {
  TRELLIS_CHECK(!running.empty());
  const auto lead = [](const Claim& claim) {
    return std::tuple(claim.standing.tenant_lead, claim.standing.session_lead);
  };
  const Claim& least =
      *std::min_element(running.begin(), running.end(),
                        [&](const Claim& a, const Claim& b) { return lead(a) < lead(b); });
  if (const auto chosen = WhoMakesRoom(least, running, quantum)) return *chosen;
  const Claim& youngest = *std::max_element(
      running.begin(), running.end(), [](const Claim& a, const Claim& b) { return a.id < b.id; });
  size_t last = 0;
  const auto place = [&](size_t i) {
    return std::tuple(running[i].standing.tenant == youngest.standing.tenant,
                      running[i].standing.priority, running[i].id);
  };
  for (size_t i = 1; i < running.size(); i++) {
    if (place(i) > place(last)) last = i;
  }
  return last;
}

}  // namespace trellis
