#include "sched/fair_share.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

namespace trellis {
namespace {

constexpr int64_t kNoEnd = int64_t{1} << 60;

TEST(FairShareTest, AloneNobodyLeads) {
  FairShare shares(kNoEnd);
  const auto only = shares.Enter({"key", "session"});
  shares.Charge(only, 100000);
  EXPECT_EQ(shares.TenantLead(only), 0);
  EXPECT_EQ(shares.SessionLead(only), 0);
  shares.Leave(only);
}

TEST(FairShareTest, LeadsAreCountedFromAnEvenShareOnEachLevel) {
  FairShare shares(kNoEnd);
  const auto a1 = shares.Enter({"a", "1"}), a2 = shares.Enter({"a", "2"}),
             b = shares.Enter({"b", "1"});
  shares.Charge(a1, 400);
  EXPECT_EQ(shares.TenantLead(a1), 200);
  EXPECT_EQ(shares.TenantLead(b), -200);
  EXPECT_EQ(shares.SessionLead(a1), 200);
  EXPECT_EQ(shares.SessionLead(a2), -200);
  EXPECT_EQ(shares.SessionLead(b), 0) << "alone in its tenant; of the same name, another session";
  EXPECT_EQ(shares.num_sessions(), 3u);
  EXPECT_EQ(a1.tenant(), a2.tenant());
  EXPECT_NE(a1.tenant(), b.tenant());
}

TEST(FairShareTest, NobodySavesUpAShareByStayingAway) {
  FairShare shares(kNoEnd);
  const auto busy = shares.Enter({"", "busy"});
  const auto first = shares.Enter({"", "late"});
  shares.Leave(first);
  shares.Charge(busy, 10000);
  const auto late = shares.Enter({"", "late"});
  EXPECT_EQ(shares.SessionLead(late), 0);
  EXPECT_EQ(shares.SessionLead(busy), 0);
}

TEST(FairShareTest, NobodyShedsALeadByLeaving) {
  FairShare shares(kNoEnd);
  const auto other = shares.Enter({"", "other"});
  const auto ahead = shares.Enter({"", "ahead"});
  shares.Charge(ahead, 1000);
  const int64_t lead = shares.SessionLead(ahead);
  shares.Leave(ahead);
  const auto back = shares.Enter({"", "ahead"});
  EXPECT_EQ(shares.SessionLead(back), lead);
  shares.Leave(back);
  shares.Charge(other, 5000);
  const auto later = shares.Enter({"", "ahead"});
  EXPECT_EQ(shares.SessionLead(later), 0) << "the others have caught up";
}

// Else one that is passed over for ever new ones would never lag.
TEST(FairShareTest, WhoWaitsLagsByAnEvenShareWhoeverComesAndGoes) {
  FairShare shares(kNoEnd);
  const auto waits = shares.Enter({"", "waits"});
  for (int i = 0; i < 1000; i++) {
    const auto passes = shares.Enter({"", "x" + std::to_string(i)});
    shares.Charge(passes, 50);
    shares.Leave(passes);
  }
  EXPECT_EQ(shares.SessionLead(waits), -1000 * 50 / 2);
}

// A long answer is a small, steady want: it earns no right to the machine for later.
TEST(FairShareTest, WhoAsksForLittleForLongIsNotOwedWithoutEnd) {
  FairShare shares(1000);
  const auto writes = shares.Enter({"", "writes"}), computes = shares.Enter({"", "computes"});
  for (int step = 0; step < 1000; step++) {
    shares.Charge(writes, 1);
    shares.Charge(computes, 100);
  }
  EXPECT_EQ(shares.SessionLead(writes), -1000);
  shares.Charge(writes, 1500);
  EXPECT_GT(shares.SessionLead(writes), -1000);
}

TEST(FairShareTest, OneThatComesAndGoesIsNotForgottenForIt) {
  FairShare shares(kNoEnd);
  const auto stays = shares.Enter({"", "stays"});
  int64_t lead = 0;
  for (int i = 0; i < 3000; i++) {
    const auto turn = shares.Enter({"", "turns"});
    EXPECT_EQ(shares.SessionLead(turn), lead) << i;
    shares.Charge(turn, 10);
    lead = shares.SessionLead(turn);
    shares.Leave(turn);
  }
}

TEST(FairShareTest, SeveralRequestsOfAClientAreOneClient) {
  FairShare shares(kNoEnd);
  const auto a = shares.Enter({"", "a"}), again = shares.Enter({"", "a"}),
             b = shares.Enter({"", "b"});
  shares.Charge(a, 100);
  EXPECT_EQ(shares.num_sessions(), 2u);
  EXPECT_EQ(again.session_service(), 100u);
  shares.Leave(a);
  EXPECT_EQ(shares.SessionLead(again), 50);
  EXPECT_EQ(shares.SessionLead(b), -50);
}

// Whatever comes, goes and is charged: somebody active never leads, and leads are what the
// definition says, computed with no bookkeeping.
TEST(FairShareTest, AgreesWithItsDefinitionOnRandomHistories) {
  struct Client {
    FairShare::Member member;
    uint64_t service = 0;
  };
  std::mt19937 random(3);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  for (int round = 0; round < 30; round++) {
    const int64_t most_owed = round % 2 == 0 ? kNoEnd : 5000;
    FairShare shares(most_owed);
    std::map<std::string, Client> active;
    std::map<std::string, uint64_t> service;  // of all who ever were
    uint64_t even = 0, rest = 0;
    const auto advance = [&](size_t tokens) {
      uint64_t sum = 0;
      if (!active.empty()) {
        rest += tokens;
        even += rest / active.size();
        rest %= active.size();
      }
      for (const auto& [name, client] : active) sum += client.service;
      if (!active.empty()) even = std::max(even, sum / active.size());
    };
    for (int step = 0; step < 500; step++) {
      const std::string name = std::to_string(below(8));
      const auto it = active.find(name);
      size_t computed = 0;
      if (it == active.end()) {
        Client client{.member = shares.Enter({"", name})};
        client.service = std::max(service[name], even);
        active[name] = client;
      } else if (below(4) == 0) {
        service[name] = it->second.service;
        shares.Leave(it->second.member);
        active.erase(it);
      } else {
        computed = below(3000);
        shares.Charge(it->second.member, computed);
        if (it->second.service + most_owed < even) it->second.service = even - most_owed;
        it->second.service += computed;
      }
      advance(computed);
      int64_t least = std::numeric_limits<int64_t>::max();
      for (const auto& [other, client] : active) {
        const auto lead =
            std::max(static_cast<int64_t>(client.service) - static_cast<int64_t>(even), -most_owed);
        ASSERT_EQ(shares.SessionLead(client.member), lead) << round << " " << step;
        least = std::min(least, lead);
      }
      if (!active.empty()) {
        ASSERT_LE(least, 0);
      }
    }
  }
}

TEST(FairShareTest, NamesThatAreMadeUpCostNoMemoryForEver) {
  FairShare shares(kNoEnd);
  const auto stays = shares.Enter({"", "stays"});
  for (int i = 0; i < 5000; i++) {
    const auto made_up = shares.Enter({"", "x" + std::to_string(i)});
    shares.Charge(made_up, 10);
    shares.Leave(made_up);
  }
  // The first of them is forgotten, the last is not.
  const auto first = shares.Enter({"", "x0"}), last = shares.Enter({"", "x4999"});
  EXPECT_EQ(shares.SessionLead(first), 0);
  EXPECT_GT(shares.SessionLead(last), 0);
  EXPECT_EQ(shares.num_sessions(), 3u);
}

}  // namespace
}  // namespace trellis
