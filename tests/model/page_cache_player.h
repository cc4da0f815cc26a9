// Plays a list of operations against a PageCache and its oracle, and says where they first differ.
//
// After every operation it compares all that the two have in common: counts, what each lease holds
// and may still have, what probes would match; it reads every row of every lease, whose contents
// say which tokens they were computed from (kv/test_rows.h); and it calls Validate(), which aborts.
// A third judge, that knows neither the tree nor the oracle, is the journal: as long as nothing was
// evicted, whatever was committed since the last reset is found.
//
// Operations are small integers, so that a list that fails can be shrunk to a short one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "kv/eviction_policy.h"
#include "page_cache_oracle.h"

namespace trellis {

enum class OpKind : uint8_t {
  kAcquire,   // tokens of one of a few streams that part at nasty lengths
  kFork,      // the tokens of another lease, whole or cut, and a few more
  kRecall,    // the tokens of a lease that is gone
  kReserve,   // and scribble over all rows that may be written
  kCommit,    // a part of what is reserved
  kAppend,    // reserve, write, commit
  kSqueeze,   // reserve all there is, and commit some of it
  kOverdraw,  // ask for one page more than there is
  kRelease,
  kGiveUp,  // release, with only some of the rows worth keeping
  kPin,     // the tokens of a lease or of one that is gone, for a time
  kUnpin,   // time passes, or one has to give pins up
  kReset,
  kNumKinds,
};

struct Op {
  OpKind kind;
  uint8_t which, length, stream;  // what they choose depends on the kind
  friend bool operator==(const Op&, const Op&) = default;
};
std::ostream& operator<<(std::ostream& out, const Op& op);

struct PlaySetup {
  size_t capacity = 4;    // pages
  size_t alphabet = 2;    // different tokens
  size_t max_leases = 4;  // at least 1
  bool keep_finished = true;
  EvictionPolicyKind eviction = EvictionPolicyKind::kLru;
};
std::ostream& operator<<(std::ostream& out, const PlaySetup& setup);

struct PlayResult {
  std::optional<std::string> difference;
  PageCacheOracle::Rare rare;  // how often each rare thing happened
  size_t num_pins = 0, num_pins_given_up = 0;
};

PlayResult Play(const PlaySetup& setup, const std::vector<Op>& ops);

}  // namespace trellis
