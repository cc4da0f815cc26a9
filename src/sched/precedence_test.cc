#include "sched/precedence.h"

#include <gtest/gtest.h>

#include <vector>

namespace trellis {
namespace {

constexpr Quantum kQuantum{.tokens = 1000};

Claim Of(uint64_t id, size_t locality = 0, Standing standing = {}) {
  return {.id = RequestId(id), .standing = standing, .locality = locality};
}

uint64_t FirstOf(const std::vector<Claim>& claims) {
  return claims[First(claims, kQuantum)].id.value();
}

TEST(PrecedenceTest, LocalityThenAge) {
  EXPECT_EQ(FirstOf({Of(1, 10), Of(2, 500), Of(3, 20)}), 2u);
  EXPECT_EQ(FirstOf({Of(7, 10), Of(5, 10), Of(9, 10)}), 5u);
}

TEST(PrecedenceTest, WhoLeadsByAQuantumComesAfterWhoDoesNot) {
  EXPECT_EQ(FirstOf({Of(1, 900, {.session_lead = 1000}), Of(2, 0)}), 2u);
  EXPECT_EQ(FirstOf({Of(1, 900, {.session_lead = 999}), Of(2, 0)}), 1u);
  EXPECT_EQ(FirstOf({Of(1, 900, {.tenant = 1, .tenant_lead = 1000}), Of(2, 0)}), 2u);
}

TEST(PrecedenceTest, WhoLagsByFourQuantaComesFirst) {
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.session_lead = -4000})}), 2u);
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.session_lead = -3999})}), 1u);
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.tenant = 1, .tenant_lead = -4000})}), 2u);
}

TEST(PrecedenceTest, WhoIsOverdueComesFirstInItsSession) {
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.due = Standing::Due::kOverdue})}), 2u);
}

TEST(PrecedenceTest, PriorityRulesInsideATenantAndNotBetweenThem) {
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.session_lead = 5000, .priority = -1})}), 2u);
  EXPECT_EQ(FirstOf({Of(1, 900), Of(2, 0, {.tenant = 1, .priority = -1})}), 1u);
  // The tenant's first is its most urgent one, though another of its own has more locality.
  EXPECT_EQ(
      FirstOf({Of(1, 500), Of(2, 900, {.tenant = 1}), Of(3, 100, {.tenant = 1, .priority = -1})}),
      1u);
}

TEST(PrecedenceTest, TheMoreUrgentOfTwoPartByPart) {
  const Standing own{.tenant = 1, .session_lead = 500, .priority = 9};
  const Standing other{
      .tenant = 1, .session_lead = -5, .priority = 3, .due = Standing::Due::kOverdue};
  const Standing both = MoreUrgent(own, other, kQuantum);
  EXPECT_EQ(both.priority, 3);
  EXPECT_EQ(both.session_lead, -5);
  EXPECT_EQ(both.due, Standing::Due::kOverdue);
  EXPECT_EQ(MoreUrgent(own, {.tenant = 2, .priority = 3}, kQuantum).tenant, 2u);
  EXPECT_EQ(MoreUrgent(own, {.tenant = 2, .tenant_lead = 1000, .priority = 3}, kQuantum).tenant,
            1u);
}

TEST(PrecedenceTest, RoomIsMadeByTheYoungestOfWhoLeadsByMost) {
  const std::vector<Claim> running = {
      Of(1, 0, {.tenant_lead = 1500}), Of(2, 0, {.tenant_lead = 1500}),
      Of(3, 0, {.tenant = 1, .tenant_lead = -1500}), Of(4, 0, {.tenant = 2, .tenant_lead = 600})};
  const Claim behind = Of(9, 0, {.tenant = 1, .tenant_lead = -1500});
  EXPECT_EQ(WhoMakesRoom(behind, running, kQuantum), 1u);
  EXPECT_EQ(WhoMakesRoom(Of(9, 0, {.tenant = 2, .tenant_lead = 600}), running, kQuantum),
            std::nullopt);
}

TEST(PrecedenceTest, EachPreemptionDoublesWhatTheNextOneTakes) {
  const Claim behind = Of(9, 0, {.tenant = 1});
  const auto makes_room = [&](int64_t lead, size_t preemptions) {
    const std::vector<Claim> running = {
        Of(1, 0, {.tenant_lead = lead, .num_preemptions = preemptions})};
    return WhoMakesRoom(behind, running, kQuantum).has_value();
  };
  EXPECT_FALSE(makes_room(1999, 0));
  EXPECT_TRUE(makes_room(2000, 0));
  EXPECT_FALSE(makes_room(15999, 3));
  EXPECT_TRUE(makes_room(16000, 3));
  EXPECT_FALSE(makes_room(1 << 30, 1000000)) << "and it does not overflow";
}

TEST(PrecedenceTest, LessUrgentOnesOfTheSameTenantMakeRoomFirst) {
  const std::vector<Claim> running = {
      Of(1, 0, {.priority = 5}), Of(2, 0, {.priority = 7}), Of(3, 0, {.priority = 7}),
      Of(4, 0, {.tenant = 1, .tenant_lead = 90000, .priority = 99})};
  EXPECT_EQ(WhoMakesRoom(Of(9, 0, {.priority = 6}), running, kQuantum), 2u);
  EXPECT_EQ(WhoMakesRoom(Of(9, 0, {.priority = 7}), running, kQuantum), 3u)
      << "nobody is less urgent; another tenant leads";
  EXPECT_EQ(
      WhoMakesRoom(Of(9, 0, {.tenant = 1, .tenant_lead = 90000, .priority = 0}), running, kQuantum),
      3u);
}

// Else a prompt to be warmed would throw out an answer that throws it out again.
TEST(PrecedenceTest, NobodyMakesRoomForALessUrgentOneOfItsTenant) {
  const Claim warming = Of(9, 0, {.session_lead = -4000, .priority = 100});
  EXPECT_EQ(WhoMakesRoom(warming, std::vector{Of(1, 0, {.session_lead = 4000})}, kQuantum),
            std::nullopt);
  EXPECT_EQ(WhoMakesRoom(warming, std::vector{Of(1, 0, {.session_lead = 4000, .priority = 100})},
                         kQuantum),
            0u);
}

TEST(PrecedenceTest, WithoutLeadsTheYoungestIsPreempted) {
  EXPECT_EQ(WhoIsPreempted(std::vector{Of(1), Of(5), Of(3)}, kQuantum), 1u);
  EXPECT_EQ(WhoIsPreempted(std::vector{Of(1, 0, {.priority = 2}), Of(5), Of(3)}, kQuantum), 0u)
      << "of its tenant the least urgent";
  EXPECT_EQ(
      WhoIsPreempted(std::vector{Of(1, 0, {.priority = 2}), Of(5, 0, {.tenant = 1})}, kQuantum), 1u)
      << "no tenant is shielded by numbers of its own";
}

TEST(PrecedenceTest, WhoLeadsIsPreemptedBeforeTheYoungest) {
  const std::vector<Claim> running = {Of(1, 0, {.tenant_lead = 1200}),
                                      Of(2, 0, {.tenant = 1, .tenant_lead = -1200})};
  EXPECT_EQ(WhoIsPreempted(running, kQuantum), 0u);
}

}  // namespace
}  // namespace trellis
