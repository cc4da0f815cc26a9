#include "kernels/attention.h"

#include "kernels/attention-inl.h"

namespace trellis {

size_t AttentionScratchBytes(size_t head_dim) {
  const size_t floats = kMaxTileRows * kVisitTokens + kBlockQueries * (3 * head_dim + kQueryPad);
  const size_t integers = kBlockQueries * (head_dim + 2 * kQueryPad);
  return floats * sizeof(float) + integers * sizeof(int16_t);
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
