#include "kernels/attention.h"

#include "kernels/attention-inl.h"

namespace trellis {

size_t AttentionScratchBytes(size_t head_dim) {
  const size_t floats =
      2 * head_dim * kPageTokens + 16 * kPageTokens + kBlockQueries * 2 * head_dim;
  return (floats + 64) * sizeof(float);
}

SegmentRange VisibleSegments(size_t position, size_t window) {
  const size_t begin = window == 0 || position < window ? 0 : position + 1 - window;
  return {begin / kSegmentTokens, position / kSegmentTokens};
}

}  // namespace trellis
