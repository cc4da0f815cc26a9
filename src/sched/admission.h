// Admission: how many frames must be free before a waiting request may start.
//
// A request that starts reserves frames for all the tokens it knows, so its prefill cannot run out
// of memory halfway; what it generates later is reserved page by page, and preemption is the answer
// when that fails. The headroom here keeps a request from starting when it would have to be
// preempted a moment later.
#pragma once

#include <cstddef>

namespace trellis {

struct AdmissionView {
  size_t num_tokens = 0;   // prompt, and what was generated before a preemption
  size_t num_matched = 0;  // of these, pinned by its lease already
  size_t max_new_tokens = 0;
  size_t num_running = 0;  // other requests that hold a lease
  size_t num_preemptions = 0;
};

// Frames that PageCache::AvailablePages must report after Acquire and before Reserve.
//
// New pages of the known tokens (a page matched only in part counts: it may have to be copied), and
// one more to generate into, if that crosses a page border. Nothing else running: no headroom, or
// the last request could wait for ever. Preempted before: a page for every running request, so that
// the same squeeze does not throw it out again within the next kPageTokens steps.
size_t PagesToAdmit(const AdmissionView& request);

}  // namespace trellis
