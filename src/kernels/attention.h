// Attention of new rows over paged keys and values, and writing rows into pages. Page layout:
// base/page_layout.h.
//
// ORDER. A query walks the pages of its sequence in absolute position order, a few at a time. The
// sequence is cut into segments of kSegmentTokens at fixed absolute positions; within a segment
// there is one running (max, sum, acc) state, and segments are merged in order. So the bits of a
// query's output depend on its position and the rows it sees, never on chunking, batch or threads;
// prefill and decode are the same function.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/page_layout.h"

namespace trellis {

inline constexpr size_t kSegmentTokens = 512;

// head_dim is a multiple of 8 and at most this.
inline constexpr size_t kMaxHeadDim = 1024;

// One sequence's pages, as kernels see them. Position p is row p % kPageTokens of page p /
// kPageTokens.
struct PagedKv {
  const PageLayout* layout = nullptr;
  std::byte* const* pages = nullptr;  // [PagesFor(number of resident positions)]
};

// A query row: one position of one sequence. Its own key and value are already in the pages.
struct AttentionRow {
  // Of its sequence, [PagesFor(position + 1)]; those that lie before its window are not read,
  // unless rows that it has others in common with look there.
  std::byte* const* pages = nullptr;
  size_t position = 0;
  const float* q = nullptr;  // head h at h * head_dim
  float* out = nullptr;      // head h at h * head_dim
};

// Query rows in one layer, of any sequences. Neighbours that have a page in common read it
// together: rows should be sorted so that those who share pages are neighbours. A query at position
// p sees positions max(0, p - window + 1) .. p.
struct AttentionTask {
  const PageLayout* layout = nullptr;
  size_t layer = 0;
  size_t window = 0;  // 0: everything before; else the number of positions seen, itself included
  // A multiple of layout->num_kv_heads. GQA: heads h * group .. share kv head h.
  size_t num_heads = 0;
  float scale = 0;    // multiplies q . k; positive
  float softcap = 0;  // 0: none; else scores become softcap * tanh(score / softcap)
  const AttentionRow* rows = nullptr;
};

struct AttentionKernels {
  // What pages should hold where nobody says otherwise.
  KvType fastest_type;

  // Rows [row_begin, row_end) of `task`, the query heads of kv head `kv_head`, whole context.
  // `scratch` is the calling thread's own, 64-byte aligned, AttentionScratchBytes(head_dim) long.
  void (*attend)(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                 std::byte* scratch);

  // The same cut along the context, for decode over long contexts with few heads: the partial
  // states of segment `segment` into `partials`, [rows][group][2 + head_dim] f32: max, sum, acc
  // (rotated as the values are).
  // Those of rows that see nothing of the segment mean nothing.
  void (*attend_segment)(const AttentionTask& task, size_t kv_head, size_t row_begin,
                         size_t row_end, size_t segment, float* partials, std::byte* scratch);
  // Merges the partial states of the segments that row `row` sees, in order, and writes its heads:
  // those of segment VisibleSegments().first at `partials`, of each further one segment_stride
  // behind. attend == attend_segment over each visible segment + merge_segments, bit for bit.
  void (*merge_segments)(const AttentionTask& task, size_t kv_head, size_t row,
                         const float* partials, size_t segment_stride);

  // Writes k and v rows ([num_rows, stride] f32, kv head h at h * head_dim) as the layout's type
  // (round to nearest even) into the pages at positions first_position .. + num_rows - 1 of
  // `layer`, all kv heads. Pages hold finite numbers only: what is beyond +-65504 (bf16: +-2^60)
  // becomes that, before rows are rotated, and NaN becomes 0: a query meets the values of later
  // rows of its block with weight 0, and 0 * Inf is NaN.
  void (*write_rows)(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
                     const float* k, const float* v, size_t stride);
};

// Scratch of one thread. At most 96 query heads may share a kv head.
size_t AttentionScratchBytes(size_t head_dim);

// attend() takes any number of rows and cuts them into blocks of this many; only rows of a block
// read pages together. `group`: query heads of a kv head.
size_t AttentionBlockRows(size_t group);

// Segments that a query at `position` with `window` sees: [first, last].
struct SegmentRange {
  size_t first;
  size_t last;
};
SegmentRange VisibleSegments(size_t position, size_t window);

}  // namespace trellis
