#include "kernels/attention.h"

#include "kernels/attention-inl.h"

namespace trellis {

size_t AttentionScratchBytes(size_t head_dim) {
  const size_t floats = kMaxTileRows * kPageTokens + kBlockQueries * (3 * head_dim + kQueryPad);
  return floats * sizeof(float);
}

size_t AttentionBlockRows(size_t group) {
  TRELLIS_CHECK(group <= kBlockQueries);
  return kBlockQueries / group;
}

SegmentRange VisibleSegments(size_t position, size_t window) {
  const size_t begin = window == 0 || position < window ? 0 : position + 1 - window;
  return {begin / kSegmentTokens, position / kSegmentTokens};
}

}  // namespace trellis
