#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace trellis {

void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s (this is a bug in Trellis)\n", file, line,
               condition);
  std::fflush(stderr);
  std::abort();
}

}  // namespace trellis
