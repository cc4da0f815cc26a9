// PageCache against its oracle under random histories: many long ones from a seed, and short ones
// from RapidCheck, which makes a failing one shorter until it says what is wrong.
//
//   TRELLIS_MODEL_TEST_OPS    operations in all, default 100,000; `scripts/test long` takes 10^7
//   TRELLIS_MODEL_TEST_SEED   the seed to begin with, default 1
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "page_cache_player.h"

namespace trellis {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// More of what makes the tree interesting, few resets.
constexpr OpKind kFrequent[] = {
    OpKind::kAcquire, OpKind::kAcquire, OpKind::kFork,    OpKind::kFork,   OpKind::kRecall,
    OpKind::kReserve, OpKind::kReserve, OpKind::kCommit,  OpKind::kCommit, OpKind::kAppend,
    OpKind::kAppend,  OpKind::kAppend,  OpKind::kAppend,  OpKind::kAppend, OpKind::kRelease,
    OpKind::kRelease, OpKind::kGiveUp,  OpKind::kSqueeze, OpKind::kPin,    OpKind::kUnpin,
    OpKind::kOverdraw};

// --- Long histories from a seed ---

struct History {
  PlaySetup setup;
  std::vector<Op> ops;
};

History MakeHistory(uint64_t seed) {
  constexpr size_t kCapacities[] = {1, 2, 3, 4, 5, 6, 8, 10, 14, 20};
  std::mt19937_64 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  History history{
      .setup = {.capacity = kCapacities[below(std::size(kCapacities))],
                .alphabet = 1 + below(3),
                .max_leases = 1 + below(7),
                .keep_finished = below(12) != 0,
                // Half of them as LRU, of which the oracle knows all.
                .eviction =
                    kEvictionPolicies[below(2) == 0 ? 0 : below(std::size(kEvictionPolicies))]},
      .ops = std::vector<Op>(400)};
  for (Op& op : history.ops) {
    op.kind = below(60) == 0 ? OpKind::kReset : kFrequent[below(std::size(kFrequent))];
    op.which = static_cast<uint8_t>(below(256));
    op.length = static_cast<uint8_t>(below(3) == 0 ? below(256) : below(20));
    op.stream = static_cast<uint8_t>(below(20));
  }
  return history;
}

// A broken invariant aborts, and then nobody else says which seed it was.
volatile sig_atomic_t g_seed_set = 0;
uint64_t g_seed = 0;
void SayTheSeed(int) {
  if (g_seed_set != 0) {
    std::fprintf(stderr, "aborted: repeat it with TRELLIS_MODEL_TEST_SEED=%llu\n",
                 static_cast<unsigned long long>(g_seed));
  }
  std::signal(SIGABRT, SIG_DFL);
}

TEST(PageCacheModelTest, AgreesWithTheOracleOnLongHistories) {
  std::signal(SIGABRT, SayTheSeed);
  const uint64_t num_ops = FromEnvironment("TRELLIS_MODEL_TEST_OPS", 100000);
  PageCacheOracle::Rare rare;
  size_t num_pins = 0, num_pins_given_up = 0;
  uint64_t done = 0;
  for (g_seed = FromEnvironment("TRELLIS_MODEL_TEST_SEED", 1); done < num_ops; g_seed++) {
    g_seed_set = 1;
    const History history = MakeHistory(g_seed);
    const PlayResult result = Play(history.setup, history.ops);
    ASSERT_FALSE(result.difference) << "TRELLIS_MODEL_TEST_SEED=" << g_seed << ", " << history.setup
                                    << ": " << *result.difference;
    done += history.ops.size();
    rare.evicted += result.rare.evicted;
    rare.dropped_below += result.rare.dropped_below;
    rare.taken_over += result.rare.taken_over;
    rare.rows_copied += result.rare.rows_copied;
    rare.deduplicated += result.rare.deduplicated;
    rare.handed_back += result.rare.handed_back;
    rare.refused += result.rare.refused;
    rare.detached += result.rare.detached;
    rare.unneeded += result.rare.unneeded;
    num_pins += result.num_pins;
    num_pins_given_up += result.num_pins_given_up;
  }
  g_seed_set = 0;
  std::signal(SIGABRT, SIG_DFL);
  fmt::print(
      "{} operations: {} pages evicted, {} borrowed pages' followers dropped, {} pages taken "
      "over, {} rows copied, {} pages deduplicated, {} handed back to their writer, {} "
      "reservations refused, {} trees detached, {} rows given up, {} pins, {} given up for "
      "others\n",
      done, rare.evicted, rare.dropped_below, rare.taken_over, rare.rows_copied, rare.deduplicated,
      rare.handed_back, rare.refused, rare.detached, rare.unneeded, num_pins, num_pins_given_up);
  // The rarest of them too are tested often.
  for (const size_t often :
       {rare.evicted, rare.dropped_below, rare.taken_over, rare.rows_copied, rare.deduplicated,
        rare.handed_back, rare.refused, rare.detached, rare.unneeded, num_pins}) {
    EXPECT_GT(often, done / 2000);
  }
  EXPECT_GT(num_pins_given_up, done / 20000);
}

// --- Short histories from RapidCheck ---

// In a process of its own, so that a history that aborts can be made shorter too.
std::optional<std::string> PlayApart(const PlaySetup& setup, const std::vector<Op>& ops) {
  int channel[2];
  if (pipe(channel) != 0) return "pipe failed";
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return "fork failed";
  if (child == 0) {
    dup2(channel[1], STDERR_FILENO);  // what a check says before it aborts
    const PlayResult result = Play(setup, ops);
    if (result.difference) fmt::print(stderr, "{}", *result.difference);
    std::fflush(nullptr);
    _exit(result.difference ? 1 : 0);
  }
  close(channel[1]);
  std::string said;
  char buffer[4096];
  for (ssize_t size; (size = read(channel[0], buffer, sizeof(buffer))) > 0;) {
    said.append(buffer, static_cast<size_t>(size));
  }
  close(channel[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return std::nullopt;
  return said;
}

rc::Gen<Op> OpGen() {
  const auto byte = [](int end) { return rc::gen::cast<uint8_t>(rc::gen::inRange(0, end)); };
  std::vector<OpKind> kinds(std::begin(kFrequent), std::end(kFrequent));
  kinds.push_back(OpKind::kReset);
  return rc::gen::construct<Op>(rc::gen::elementOf(kinds), byte(8), byte(20), byte(8));
}

TEST(PageCacheModelTest, AgreesWithTheOracleOnShortHistories) {
  EXPECT_TRUE(rc::check("cache and oracle agree", [] {
    const PlaySetup setup{.capacity = *rc::gen::inRange<size_t>(1, 8),
                          .alphabet = *rc::gen::inRange<size_t>(1, 3),
                          .max_leases = *rc::gen::inRange<size_t>(1, 5),
                          .eviction = *rc::gen::elementOf(std::vector<EvictionPolicyKind>(
                              std::begin(kEvictionPolicies), std::end(kEvictionPolicies)))};
    const auto ops = *rc::gen::container<std::vector<Op>>(OpGen());
    const auto difference = PlayApart(setup, ops);
    if (difference) RC_FAIL(*difference);
  }));
}

}  // namespace
}  // namespace trellis
