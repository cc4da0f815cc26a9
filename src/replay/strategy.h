// CacheStrategy: a way to keep keys and values from one request to the next, for `trellis replay`.
// The radix ones are the server's own PageCache; the others are what other servers do, in few lines
// and kindly: whatever a real one loses besides, to fragments or to requests that run at once, is
// not counted against it.
//
//   none         nothing is kept
//   slots-N      N slots with one sequence each, as llama-server: a prompt goes to the slot with
//   most
//                of it (a tenth at least), else to the one unused longest, which loses what it had
//                behind the common prefix; the slots share the budget, the oldest is dropped
//   copies       each prompt is kept as a whole sequence of its own, as llama-server's --cache-ram:
//                one that a later prompt begins with is replaced by it, one of which a quarter is
//                used stays; oldest out
//   blocks-N     whole blocks of N tokens named by a hash chained over all before, as vLLM: least
//                recently used out, the last of a prompt first
//   shards-N     the sessions are dealt to N caches (radix-lru) that have 1 / N of the budget each
//   compressed   radix-lru that holds twice the tokens: what 8-bit keys and values would
//   radix-X      PageCache with the eviction policy X (kv/eviction_policy.h)
//   optimum      knows the future: see Optimum
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "replay/trace.h"

namespace trellis {

class CacheStrategy {
 public:
  virtual ~CacheStrategy() = default;
  // Serves trace.requests[index], whose tokens are `tokens`; in order, each once. Returns how many
  // of its first tokens were there.
  virtual size_t Serve(size_t index, std::span<const TokenId> tokens) = 0;
  // What it holds now, in tokens' worth of keys and values, and what it takes besides.
  virtual size_t held_tokens() const = 0;
  virtual size_t overhead_bytes() const { return 0; }
};

// All that MakeStrategy knows, in the order of a table.
const std::vector<std::string>& StrategyNames();

// `capacity`: tokens of keys and values. `trace` outlives it.
// ERRORS: kInvalidArgument: no such strategy; kResourceExhausted: the machine has no room for its
// tables.
Result<std::unique_ptr<CacheStrategy>> MakeStrategy(const std::string& name, const Trace& trace,
                                                    size_t capacity);

// What no cache of this size can beat, not knowing the future or knowing it: Belady's MIN, token by
// token. Each token of the tree of all prompts is an item of its own, of size one; a prompt asks
// for all on its path. For items of one size MIN (keep what is needed soonest) has the most hits
// that any choice can have, even one that may refuse to keep what was just computed, as this one
// may. Real caches only have less: they keep what runs, whole pages, prefixes, and run the last
// token of a prompt again. (MIN keeps prefixes too: what is above is asked for whenever what is
// below is.)
std::unique_ptr<CacheStrategy> MakeOptimum(const Trace& trace, size_t capacity);

}  // namespace trellis
