// WaitQueue: the requests that have no lease, and which of them wait for a prefix. Who of those
// that do not goes first is for sched/precedence.h to say.
//
// Joining: a waiting request whose tokens share with a running prefill a prefix that this prefill
// has yet to compute waits for exactly that part, instead of computing it a second time, and holds
// nothing meanwhile. It is ready as soon as the part is in the cache (token-exact, mid-page too) or
// the other request is gone. Requests that share nothing pass it by.
//
//   running A   s y s t e m . . . . . . | u s e r A           rows: ^ here
//   waiting B   s y s t e m . . . . . . | u s e r B   shares  ------------ with A: waits
//   waiting C   o t h e r . . .                       ready
//
// That a prefill has rows below its progress implies the cache has them (its lease pins them), and
// that they were the longest match when it started; so the queue compares tokens with prefills only
// and never asks the cache.
//
// COST. Tokens of a pair (waiting, prefilling) are compared once, when the later of the two comes:
// Add is O(prefills), Start is O(waiting in the scope), each comparison O(shared prefix), and a
// single token load where the shared part is already computed or cannot be. Only pairs where one
// has to wait are remembered. Progress, Stop and Ready are O(waiting) integer work. So a step with
// W waiting costs O(W) integer operations, never a comparison of prompts.
//
// THREADS: none of its own; the engine's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "kv/page_cache.h"

namespace trellis {

enum class Joining {
  kNever,  // neither waits for a prefill nor is waited for
  kAllowed,
};

class WaitQueue {
 public:
  // What it looks at lies with the caller, unchanged until Remove or Stop.
  struct Entry {
    RequestId id;  // ids are ages: smaller is older
    const ScopeKey* scope = nullptr;
    std::span<const TokenId> tokens;  // at least one
    Joining joining = Joining::kAllowed;
    size_t num_cached = 0;  // of its tokens, as far as is known
  };

  // REQUIRES: its id is neither waiting nor prefilling.
  void Add(const Entry& entry);
  // A waiting request leaves unadmitted. REQUIRES: it is waiting.
  void Remove(RequestId id);

  // Those that wait for no prefill, oldest first.
  struct ReadyView {
    RequestId id;
    size_t num_cached;
  };
  std::vector<ReadyView> Ready() const;
  // Each pair of a waiting request and a prefill that it waits for.
  struct WaitView {
    RequestId waiting, prefill;
  };
  std::vector<WaitView> Waits() const;
  // So much of a waiting request is cached now. REQUIRES: it is waiting.
  void Correct(RequestId id, size_t num_cached);

  // A waiting request was admitted, with `num_rows` of its tokens in the cache; the others may now
  // have to wait for it. REQUIRES: it is waiting.
  void Start(RequestId id, size_t num_rows);
  // A prefill has num_rows rows in the cache now. Ignored if it is not prefilling. Whether somebody
  // need not wait any more. REQUIRES: rows never decrease.
  bool Progress(RequestId id, size_t num_rows);
  // A prefill is complete, died, or is no longer worth waiting for. Ignored if it is not
  // prefilling. Whether somebody need not wait any more.
  bool Stop(RequestId id);

  size_t size() const { return waiting_.size(); }
  bool empty() const { return waiting_.empty(); }
  // Token comparisons begun since construction: what tests and benches measure the cost by.
  uint64_t num_comparisons() const { return num_comparisons_; }

 private:
  // The waiting one is not ready before prefill `id` has `num_rows` rows.
  struct Need {
    RequestId id;
    size_t num_rows;
  };
  struct Waiting {
    Entry entry;
    std::vector<Need> needs;  // ready when empty
  };
  struct Prefill {
    Entry entry;
    size_t num_rows;
  };

  void Compare(const Prefill& prefill, Waiting& waiting);

  std::map<RequestId, Waiting> waiting_;
  std::map<RequestId, Prefill> prefills_;
  uint64_t num_comparisons_ = 0;
};

}  // namespace trellis
