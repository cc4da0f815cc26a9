#include "sched/fair_share.h"

#include <algorithm>

#include "base/check.h"

namespace trellis {

// --- One level ---

Shares::Account& Shares::Enter(const std::string& name) {
  Account& account = accounts_[name];
  if (account.num_requests++ == 0) {
    account.service = std::max(account.service, even_);
    active_service_ += account.service;
    num_active_++;
    Advance(0);  // one that comes back with a lead raises the mean
  }
  return account;
}

void Shares::Leave(const std::string& name) {
  const auto it = accounts_.find(name);
  TRELLIS_CHECK(it != accounts_.end() && it->second.num_requests > 0);
  Account& account = it->second;
  if (--account.num_requests > 0) return;
  active_service_ -= account.service;
  num_active_--;
  const bool leads = Lead(account) > 0;
  Advance(0);  // one that had less than the others raises the mean by leaving
  if (!leads) {
    accounts_.erase(it);
    return;
  }
  account.departure = ++num_departures_;
  departed_.push_back({name, account.departure});
  if (departed_.size() <= kMaxRemembered) return;
  // Unless it has come back since.
  const auto oldest = accounts_.find(departed_.front().name);
  if (oldest != accounts_.end() && oldest->second.num_requests == 0 &&
      oldest->second.departure == departed_.front().number) {
    accounts_.erase(oldest);
  }
  departed_.pop_front();
}

void Shares::Charge(Account& account, size_t num_tokens) {
  TRELLIS_CHECK(account.num_requests > 0);
  Forgive(account);
  account.service += num_tokens;
  active_service_ += num_tokens;
  Advance(num_tokens);
}

// What it is owed beyond the most.
void Shares::Forgive(Account& account) {
  const auto lead = static_cast<int64_t>(account.service) - static_cast<int64_t>(even_);
  if (lead >= -most_owed_) return;
  const auto forgiven = static_cast<uint64_t>(-most_owed_ - lead);
  account.service += forgiven;
  active_service_ += forgiven;
}

void Shares::Advance(size_t num_tokens) {
  if (num_active_ == 0) return;
  rest_ += num_tokens;
  even_ += rest_ / num_active_;
  rest_ %= num_active_;
  even_ = std::max(even_, active_service_ / num_active_);
}

// --- Both ---

FairShare::Member FairShare::Enter(const ClientName& name) {
  const size_t number = by_name_.size();
  std::unique_ptr<Tenant>& tenant = by_name_[name.tenant];
  if (tenant == nullptr) {
    tenant = std::make_unique<Tenant>(most_owed_);
    tenant->number = number;
  }
  tenant->account = &tenants_.Enter(name.tenant);
  Member member;
  member.name_ = name;
  member.tenant_ = tenant.get();
  member.session_ = &tenant->sessions.Enter(name.session);
  return member;
}

void FairShare::Leave(const Member& member) {
  member.tenant_->sessions.Leave(member.name_.session);
  tenants_.Leave(member.name_.tenant);
}

void FairShare::Charge(const Member& member, size_t num_tokens) {
  tenants_.Charge(*member.tenant_->account, num_tokens);
  member.tenant_->sessions.Charge(*member.session_, num_tokens);
}

size_t FairShare::num_sessions() const {
  size_t num = 0;
  for (const auto& [name, tenant] : by_name_) num += tenant->sessions.num_active();
  return num;
}

}  // namespace trellis
