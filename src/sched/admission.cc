#include "sched/admission.h"

#include <algorithm>

#include "base/check.h"
#include "base/types.h"

namespace trellis {

AdmissionNeed NeedToAdmit(const AdmissionView& request) {
  TRELLIS_CHECK(request.num_tokens > 0 && request.max_new_tokens > 0);
  if (request.num_running == 0) return {.num_rows = request.num_tokens, .spare_pages = 0};
  // The last token that it generates is never fed, so it needs no row.
  const size_t new_rows = std::min(request.max_new_tokens - 1, kPageTokens);
  return {.num_rows = request.num_tokens + new_rows,
          .spare_pages = request.num_preemptions > 0 ? request.num_running : 0};
}

}  // namespace trellis
