// TRELLIS_CHECK: a condition that only a bug of ours can break. It aborts, in every build; it is
// never reachable from a request or a file. TRELLIS_DCHECK is the same where it is too dear for a
// release.
#pragma once

namespace trellis {
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);
}  // namespace trellis

#define TRELLIS_CHECK(condition) \
  (static_cast<bool>(condition) ? (void)0 : ::trellis::CheckFailed(__FILE__, __LINE__, #condition))

#if defined(TRELLIS_DEBUG_CHECKS)
#define TRELLIS_DCHECK(condition) TRELLIS_CHECK(condition)
#else
#define TRELLIS_DCHECK(condition) ((void)sizeof(static_cast<bool>(condition)))
#endif
