// Admission: how much must be free before a waiting request may start.
//
// A request that starts reserves frames for all the tokens it knows, so its prefill does not run
// out of memory halfway; what it generates later is reserved page by page, and preemption is the
// answer when that fails. The headroom here keeps a request from starting when it would have to be
// preempted a moment later. It is looked at, not held.
#pragma once

#include <cstddef>

namespace trellis {

struct AdmissionView {
  size_t num_tokens = 0;      // prompt, and what was generated before a preemption
  size_t max_new_tokens = 0;  // at least 1
  size_t num_running = 0;     // other requests that hold a lease
  size_t num_preemptions = 0;
};

// Start it if PageCache::PagesNeeded(lease, num_rows) + spare_pages are available.
struct AdmissionNeed {
  size_t num_rows = 0;
  size_t spare_pages = 0;
};

// The known tokens and a page's worth to generate, or less if it may not generate that much. With
// nothing else running the known tokens alone, or the last request could wait for ever. Preempted
// before: and a page for every running request, so that the same squeeze does not throw it out
// again within the next kPageTokens steps.
AdmissionNeed NeedToAdmit(const AdmissionView& request);

}  // namespace trellis
