#include "sched/admission.h"

#include <algorithm>

#include "base/check.h"
#include "base/types.h"

namespace trellis {

size_t PagesToAdmit(const AdmissionView& request) {
  TRELLIS_CHECK(request.num_tokens > 0 && request.num_matched <= request.num_tokens);
  const size_t whole_pages_matched = request.num_matched / kPageTokens;
  // A prompt that is resident to its last row needs no frame of its own until it generates.
  const size_t known = request.num_matched == request.num_tokens
                           ? 0
                           : PagesFor(request.num_tokens) - whole_pages_matched;
  if (request.num_running == 0) return known;

  // The last token that it will generate is never fed, so it needs no row.
  const size_t new_rows = std::min(request.max_new_tokens, kPageTokens + 1);
  const size_t rows = request.num_tokens + (new_rows > 0 ? new_rows - 1 : 0);
  const size_t growth = PagesFor(rows) - whole_pages_matched - known;
  const size_t others = request.num_preemptions > 0 ? request.num_running : 0;
  return known + std::min<size_t>(growth, 1) + others;
}

}  // namespace trellis
