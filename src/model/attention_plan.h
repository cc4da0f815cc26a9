// AttentionPlan: the query rows of a step, ordered so that those who share pages are neighbours,
// and the pieces of work that threads take. The same for all layers that see as far. Results do not
// depend on it (kernels/attention.h), time does.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/attention.h"

namespace trellis {

// Neighbouring rows that one call attends to. Over long contexts the context is cut, too: an item
// is then one segment, whose states are merged when all are there.
struct AttentionBlock {
  size_t begin, end;      // rows of the plan
  SegmentRange segments;  // that any of them sees
  bool is_cut;
  size_t first_state;  // of its [kv heads, segments, rows] states, if it is cut

  size_t num_rows() const { return end - begin; }
  size_t num_segments() const { return segments.last - segments.first + 1; }
  // Where the states of one row (all query heads of a kv head) are, counted in those of a row. From
  // one segment to the next it is num_rows() of them.
  size_t StateOf(size_t kv_head, size_t segment, size_t row) const {
    return first_state + (kv_head * num_segments() + segment - segments.first) * num_rows() + row -
           begin;
  }
};

struct AttentionItem {
  size_t block, kv_head;
  size_t segment;  // if the block is cut
  double work;     // pairs of a query and a position
};

struct AttentionPlanOptions {
  size_t num_kv_heads, group;  // query heads = num_kv_heads * group
  size_t window;               // as AttentionTask's
  size_t num_threads;
};

class AttentionPlan {
 public:
  // Plans for `rows`; those of one sequence are neighbours, in order of position, and have the same
  // page table. Keeps nothing of the plan before, but its memory.
  void Make(std::span<const AttentionRow> rows, const AttentionPlanOptions& options);

  // The rows in the plan's order.
  const std::vector<AttentionRow>& rows() const { return rows_; }
  // Where row i of the plan was in Make()'s argument, and the block it is in.
  size_t source(size_t row) const { return places_[row].source; }
  const AttentionBlock& block_of(size_t row) const { return blocks_[places_[row].block]; }

  const std::vector<AttentionBlock>& blocks() const { return blocks_; }
  const std::vector<AttentionItem>& items() const { return items_; }  // largest first
  size_t num_states() const { return num_states_; }

 private:
  struct Run {
    size_t begin, end;  // rows of one sequence, in Make()'s argument
  };
  struct Place {
    size_t source, block;
  };

  void Order(std::span<const AttentionRow> rows);
  void MakeBlocks(const AttentionPlanOptions& options);
  void MakeItems(const AttentionPlanOptions& options);

  std::vector<Run> runs_;
  std::vector<AttentionRow> rows_;
  std::vector<Place> places_;  // [rows]
  std::vector<AttentionBlock> blocks_;
  std::vector<AttentionItem> items_;
  size_t num_states_ = 0;
};

}  // namespace trellis
