// FairShare: how much has been computed for whom, and who has had more than an even share.
//
// Clients are told apart on two levels. A tenant is an API key: its share is a guarantee. Inside a
// tenant, sessions are what its requests call themselves: a courtesy, since names can be forged.
// On each level:
//
//   service(client) = tokens computed for it
//   even            = what somebody would have by now who had an even share all the time: grows by
//                     tokens computed / active clients, and is never less than their mean service
//   lead(client)    = service - even
//
// A lead is no less than -most_owed: who asks for little for long is owed no more than that, and
// cannot keep others waiting for it later. So somebody active never leads. Who comes (back) starts
// at `even` at least: nobody saves up a share by staying away, and nobody sheds a lead by it. A
// scheduler that prefers whoever leads by less than some quantum, and among these decides as it
// likes (by locality, say), keeps each client that always wants something within that quantum of
// its share.
//
// The counters are those of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024),
// their use beside locality that of "Locality-aware Fair Scheduling in LLM Serving" (Cao et al.,
// 2025, deficit longest prefix match), with leads in place of deficits that are refilled.
//
// THREADS: none of its own. COST: O(log clients) each; memory: active clients, and at most
// kMaxRemembered that left with a lead.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>

namespace trellis {

struct ClientName {
  std::string tenant;   // empty: there are no keys
  std::string session;  // any bytes
};

// One level: clients that share evenly.
class Shares {
 public:
  static constexpr size_t kMaxRemembered = 1024;  // of those who left with a lead

  struct Account {
    uint64_t service = 0;     // tokens
    size_t num_requests = 0;  // 0: not active
    uint64_t departure = 0;   // which of all that was, of one that is remembered
  };

  explicit Shares(int64_t most_owed) : most_owed_(most_owed) {}

  // One more request of `name`; the account stays at its address until Leave of the last.
  Account& Enter(const std::string& name);
  void Leave(const std::string& name);
  void Charge(Account& account, size_t num_tokens);

  int64_t Lead(const Account& account) const {
    return std::max(static_cast<int64_t>(account.service) - static_cast<int64_t>(even_),
                    -most_owed_);
  }
  size_t num_active() const { return num_active_; }

 private:
  struct Departure {
    std::string name;
    uint64_t number;
  };

  void Forgive(Account& account);
  void Advance(size_t num_tokens);

  const int64_t most_owed_;

  std::map<std::string, Account> accounts_;
  std::deque<Departure> departed_;  // of inactive ones that are remembered, oldest first
  uint64_t num_departures_ = 0;
  size_t num_active_ = 0;
  uint64_t active_service_ = 0;  // sum
  uint64_t even_ = 0;
  size_t rest_ = 0;  // tokens computed that even_ has no whole part of yet
};

class FairShare {
 private:
  struct Tenant {
    explicit Tenant(int64_t most_owed) : sessions(most_owed) {}
    size_t number = 0;  // by the order in which they came first
    Shares::Account* account = nullptr;
    Shares sessions;
  };

 public:
  // `most_owed`: tokens, on either level.
  explicit FairShare(int64_t most_owed) : most_owed_(most_owed), tenants_(most_owed) {}

  // A request's place in the books. Valid until it leaves.
  class Member {
   public:
    size_t tenant() const { return tenant_->number; }
    // Tokens computed for its session so far.
    uint64_t session_service() const { return session_->service; }

   private:
    friend class FairShare;
    ClientName name_;
    Tenant* tenant_ = nullptr;
    Shares::Account* session_ = nullptr;
  };

  Member Enter(const ClientName& name);
  void Leave(const Member& member);
  void Charge(const Member& member, size_t num_tokens);

  int64_t TenantLead(const Member& member) const { return tenants_.Lead(*member.tenant_->account); }
  int64_t SessionLead(const Member& member) const {
    return member.tenant_->sessions.Lead(*member.session_);
  }
  size_t num_sessions() const;  // active. O(tenants)

 private:
  const int64_t most_owed_;
  Shares tenants_;
  std::map<std::string, std::unique_ptr<Tenant>> by_name_;  // kept: there are as many as keys
};

}  // namespace trellis
