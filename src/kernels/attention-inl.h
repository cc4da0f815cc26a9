// Paged attention for a vector type S of simd_*.h. Included once by each attention_<isa>.cc.
//
// A block of query rows, times the heads that share one kv head, walks the pages of a segment,
// kVisitPages at a time. Neighbouring rows whose pages there are the same share the visit: pages
// are read once and used by all of their queries, in register tiles (attention_tile.h). Every query
// visits the pages that it sees something of, in order, and what it does not see weighs nothing, so
// what else is in the block changes nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/check.h"
#include "kernels/attention.h"
#include "kernels/attention_tile.h"
#include "kernels/attention_tile_integers.h"

namespace trellis {

// Rows of a block: queries (rows x heads of the group) fill about this many.
inline constexpr size_t kBlockQueries = 96;
// Keeps rows of queries, which are read side by side, out of each other's cache sets, and is where
// integers of a query end that take whole vectors.
inline constexpr size_t kQueryPad = 8;

template <typename S, KvType kType>
struct AttentionOf {
  using F = typename S::F;
  using Tile = AttentionTile<S, kType>;
  using Query = AttentionQuery;
  static constexpr size_t kLanes = S::kLanes;
  static_assert(2 * kQueryPad >= kLanes);
  static constexpr bool kHasScales = PageLayout{.type = kType}.has_scales();

  // Softmax state of one query over some segments.
  template <typename Acc>
  struct State {
    float max, sum;
    Acc* acc;  // [head_dim]
  };
  using Total = State<float>;
  using Partial = State<const float>;  // over one

  struct Scratch {
    float* scores;      // [kMaxTileRows, kVisitTokens]
    float* q;           // [kBlockQueries, head_dim + kQueryPad]
    float* accs;        // [kBlockQueries, 2, head_dim]: segment, total
    int16_t* integers;  // [kBlockQueries, head_dim + 2 * kQueryPad]: q
  };

  static Scratch Carve(std::byte* scratch, size_t head_dim) {
    float* scores = reinterpret_cast<float*>(scratch);
    float* q = scores + kMaxTileRows * kVisitTokens;
    float* accs = q + kBlockQueries * (head_dim + kQueryPad);
    float* end = accs + 2 * kBlockQueries * head_dim;
    return {.scores = scores, .q = q, .accs = accs, .integers = reinterpret_cast<int16_t*>(end)};
  }

  // Rows of one block in one segment, and the visits of pages they come to.
  class Walk {
   public:
    // queries: [num_rows, group], their states reset.
    Walk(const AttentionTask& task, size_t kv_head, const AttentionRow* rows, size_t num_rows,
         size_t segment, Query* queries)
        : task_(task), rows_(rows), num_rows_(num_rows), queries_(queries) {
      const PageLayout& layout = *task.layout;
      keys_ = layout.k_offset(task.layer, kv_head), values_ = layout.v_offset(task.layer, kv_head);
      scales_ = layout.scale_offset(task.layer, kv_head);
      group_ = task.num_heads / layout.num_kv_heads;
      size_t begin = (segment + 1) * kSegmentTokens, end = 0;
      for (size_t r = 0; r < num_rows; r++) {
        begin = std::min(begin, queries[r * group_].begin);
        end = std::max(end, queries[r * group_].end);
      }
      at_ = std::max(begin, segment * kSegmentTokens) / kVisitTokens;
      end_ = (std::min(end, (segment + 1) * kSegmentTokens) + kVisitTokens - 1) / kVisitTokens;
    }

    // Pages and the queries that share them.
    struct Visit : PageVisit {
      Query* queries[kBlockQueries];
      size_t num_queries;
    };
    // False when there is none left.
    bool Next(Visit* visit) {
      for (; at_ < end_; at_++, row_ = 0) {
        while (row_ < num_rows_ && !Sees(row_)) row_++;
        if (row_ == num_rows_) continue;
        Take(visit);
        return true;
      }
      return false;
    }

   private:
    bool Sees(size_t row) const {
      const Query& query = queries_[row * group_];
      return query.begin < (at_ + 1) * kVisitTokens && query.end > at_ * kVisitTokens;
    }

    // Whether the row can be part of a visit to `pages`, null where no row of it has one so far. If
    // so, pages of its own fill these.
    bool Joins(size_t row, const std::byte* (&pages)[kVisitPages]) const {
      const size_t end = PagesFor(queries_[row * group_].end);
      for (size_t i = 0; i < kVisitPages; i++) {
        const size_t page = at_ * kVisitPages + i;
        if (page < end && pages[i] != nullptr && rows_[row].pages[page] != pages[i]) return false;
      }
      for (size_t i = 0; i < kVisitPages; i++) {
        const size_t page = at_ * kVisitPages + i;
        if (page < end) pages[i] = rows_[row].pages[page];
      }
      return true;
    }

    void Take(Visit* visit) {
      const std::byte* pages[kVisitPages] = {};
      size_t begin = SIZE_MAX, end = 0;
      visit->num_queries = 0;
      for (; row_ < num_rows_; row_++) {
        if (!Sees(row_)) continue;
        if (!Joins(row_, pages)) break;
        begin = std::min(begin, queries_[row_ * group_].begin);
        end = std::max(end, queries_[row_ * group_].end);
        for (size_t g = 0; g < group_; g++)
          visit->queries[visit->num_queries++] = &queries_[row_ * group_ + g];
      }
      visit->first_position = at_ * kVisitTokens;
      visit->LimitTo(begin, end);
      for (size_t i = visit->first_page; i < visit->num_pages; i++) {
        visit->pages[i] = {.keys = pages[i] + keys_,
                           .values = pages[i] + values_,
                           .scales = reinterpret_cast<const float*>(pages[i] + scales_)};
      }
      if constexpr (kHasScales) {  // read a visit later
        for (size_t i = visit->first_page; i < visit->num_pages; i++)
          PrefetchBytes<PageLayout{.type = kType}.scale_bytes()>(pages[i] + scales_);
      }
    }

    const AttentionTask& task_;
    const AttentionRow* rows_;
    size_t num_rows_;
    Query* queries_;
    size_t group_, keys_, values_, scales_;  // offsets in a page
    size_t at_, end_, row_ = 0;              // visits, counted from position 0
  };

  static void WalkSegment(const AttentionTask& task, size_t kv_head, const AttentionRow* rows,
                          size_t num_rows, size_t segment, Query* queries, const Scratch& s) {
    const size_t head_dim = task.layout->head_dim;
    const AttentionScaling scaling(task.scale, task.softcap);
    Walk walk(task, kv_head, rows, num_rows, segment, queries);
    typename Walk::Visit visits[2];
    size_t at = 0;
    for (bool more = walk.Next(&visits[0]); more; at = 1 - at) {
      more = walk.Next(&visits[1 - at]);
      VisitPages(scaling.cap, head_dim, &visits[at], more ? &visits[1 - at] : nullptr, s.scores);
    }
  }

  static void SetScales(typename Walk::Visit* visit) {
    std::fill_n(visit->value_scales, kVisitTokens, 0.0f);
    for (size_t i = visit->first_page; i < visit->num_pages; i++) {
      std::copy_n(visit->pages[i].scales + kPageTokens, visit->num_valid_of(i),
                  visit->value_scales + i * kPageTokens);
    }
  }

  // All queries of the visit, tile by tile, each with the pages that it sees something of; the last
  // brings in what the next visit reads. A lone tile brings in the page behind the one it reads:
  // more would not stay in L1.
  static void VisitPages(float cap, size_t head_dim, typename Walk::Visit* visit,
                         const typename Walk::Visit* next, float* scores) {
    constexpr size_t kRows = Tile::kRows;
    const size_t num = visit->num_queries, num_tiles = (num + kRows - 1) / kRows;
    const size_t first_page = visit->first_page, num_pages = visit->num_pages;
    if constexpr (kHasScales) SetScales(visit);
    PageView ahead[2 * kVisitPages];
    PageView* last = std::copy(visit->pages + first_page, visit->pages + num_pages, ahead);
    const size_t num_here = num_pages - first_page;
    if (next != nullptr)
      last = std::copy(next->pages + next->first_page, next->pages + next->num_pages, last);
    std::fill(last, std::end(ahead), last[-1]);
    const auto prefetch_from = [&](size_t i) {
      std::copy_n(ahead + i, kVisitPages - first_page, visit->next + first_page);
    };
    prefetch_from(0);
    for (size_t tile = 0; tile < num_tiles; tile++) {
      Query* const* queries = visit->queries + num * tile / num_tiles;
      Query* const* end = visit->queries + num * (tile + 1) / num_tiles;
      if (tile + 1 == num_tiles) prefetch_from(num_tiles == 1 ? 1 : num_here);
      size_t from = SIZE_MAX, to = 0;
      for (Query* const* q = queries; q != end; q++)
        from = std::min(from, (*q)->begin), to = std::max(to, (*q)->end);
      visit->LimitTo(from, to);
      VisitTile<kRows>(cap, head_dim, *visit, queries, static_cast<size_t>(end - queries), scores);
    }
  }

  template <size_t kN>
  static void VisitTile(float cap, size_t head_dim, const PageVisit& visit, Query* const* queries,
                        size_t num, float* scores) {
    if constexpr (kN > 1) {
      if (num < kN) return VisitTile<kN - 1>(cap, head_dim, visit, queries, num, scores);
    }
    Tile::template Visit<kN>(cap, head_dim, visit, queries, scores);
  }

  static void Fill(float* p, size_t n, float value) {
    for (size_t i = 0; i < n; i++) p[i] = value;
  }

  static void Reset(float* max, float* sum, float* acc, size_t head_dim) {
    *max = kNoScore, *sum = 0;
    Fill(acc, head_dim, 0);
  }

  // Softmax states of as many queries: totals <- totals, then segments.
  static void Merge(const Partial* segments, Total* const* totals, size_t num, size_t head_dim) {
    float falls[2 * kBlockQueries] = {};
    static_assert(2 * kBlockQueries % kLanes == 0);
    for (size_t i = 0; i < num; i++) {
      const float max = std::max(totals[i]->max, segments[i].max);
      falls[2 * i] = totals[i]->max - max, falls[2 * i + 1] = segments[i].max - max;
      totals[i]->max = max;
    }
    for (size_t i = 0; i < 2 * num; i += kLanes)
      S::Store(falls + i, Exp2OfNegative<S>(S::Load(falls + i)));
    for (size_t i = 0; i < num; i++) {
      const float a = falls[2 * i], b = falls[2 * i + 1];
      totals[i]->sum = std::fma(totals[i]->sum, a, segments[i].sum * b);
      Blend(totals[i]->acc, a, segments[i].acc, b, head_dim);
    }
  }

  // to <- to * a + from * b.
  static void Blend(float* to, float a, const float* from, float b, size_t n) {
    const F va = S::Set(a), vb = S::Set(b);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes)
      S::Store(to + i, S::MulAdd(S::Load(to + i), va, S::Mul(S::Load(from + i), vb)));
    for (; i < n; i++) to[i] = std::fma(to[i], a, from[i] * b);
  }

  // A zero's sign may tell of weights of 0 that another block did not multiply by: + 0 drops it.
  static void WriteOut(const Total& total, size_t head_dim, float* out) {
    const float inverse = Tile::Finish(head_dim, total.acc) / total.sum;
    for (size_t d = 0; d < head_dim; d++) out[d] = total.acc[d] * inverse + 0.0f;
  }

  // The queries of row `index` of a block.
  static void MakeQueries(const AttentionTask& task, size_t kv_head, const AttentionRow& row,
                          size_t index, const Scratch& s, Query* queries) {
    const size_t head_dim = task.layout->head_dim, group = GroupOf(task);
    float* q = s.q + index * group * (head_dim + kQueryPad);
    int16_t* integers = s.integers + index * group * (head_dim + 2 * kQueryPad);
    queries += index * group;
    const AttentionScaling scaling(task.scale, task.softcap);
    for (size_t g = 0; g < group; g++) {
      const float* from = row.q + (kv_head * group + g) * head_dim;
      for (size_t d = 0; d < head_dim; d++) q[d] = from[d] * scaling.query;
      queries[g].q = q;
      Tile::Prepare(head_dim, q, integers, &queries[g]);
      q += head_dim + kQueryPad, integers += head_dim + 2 * kQueryPad;
      queries[g].begin =
          task.window == 0 || row.position < task.window ? 0 : row.position + 1 - task.window;
      queries[g].end = row.position + 1;
    }
  }

  static size_t GroupOf(const AttentionTask& task) {
    return task.num_heads / task.layout->num_kv_heads;
  }

  static void AttendBlock(const AttentionTask& task, size_t kv_head, const AttentionRow* rows,
                          size_t num_rows, const Scratch& s) {
    const size_t head_dim = task.layout->head_dim, group = GroupOf(task), num = num_rows * group;
    Query queries[kBlockQueries];
    Total totals[kBlockQueries];
    size_t first = SIZE_MAX, last = 0;
    for (size_t r = 0; r < num_rows; r++) {
      MakeQueries(task, kv_head, rows[r], r, s, queries);
      const SegmentRange range = VisibleSegments(rows[r].position, task.window);
      first = std::min(first, range.first), last = std::max(last, range.last);
    }
    for (size_t q = 0; q < num; q++) {
      queries[q].acc = s.accs + 2 * q * head_dim;
      totals[q].acc = s.accs + (2 * q + 1) * head_dim;
      Reset(&totals[q].max, &totals[q].sum, totals[q].acc, head_dim);
    }
    for (size_t segment = first; segment <= last; segment++) {
      for (size_t q = 0; q < num; q++)
        Reset(&queries[q].max, &queries[q].sum, queries[q].acc, head_dim);
      WalkSegment(task, kv_head, rows, num_rows, segment, queries, s);
      Partial states[kBlockQueries];
      Total* of[kBlockQueries];
      size_t seeing = 0;
      for (size_t q = 0; q < num; q++) {
        const SegmentRange range = VisibleSegments(rows[q / group].position, task.window);
        if (segment < range.first || segment > range.last) continue;
        states[seeing] = {.max = queries[q].max, .sum = queries[q].sum, .acc = queries[q].acc};
        of[seeing++] = &totals[q];
      }
      Merge(states, of, seeing, head_dim);
    }
    for (size_t q = 0; q < num; q++) {
      WriteOut(totals[q], head_dim, rows[q / group].out + (kv_head * group + q % group) * head_dim);
    }
  }

  static void Attend(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                     std::byte* scratch) {
    const Scratch s = Carve(scratch, task.layout->head_dim);
    const size_t block_rows = AttentionBlockRows(GroupOf(task));
    for (size_t row = row_begin; row < row_end; row += block_rows) {
      AttendBlock(task, kv_head, task.rows + row, std::min(block_rows, row_end - row), s);
    }
  }

  static void AttendSegment(const AttentionTask& task, size_t kv_head, size_t row_begin,
                            size_t row_end, size_t segment, float* partials, std::byte* scratch) {
    const size_t head_dim = task.layout->head_dim, group = GroupOf(task);
    const size_t block_rows = AttentionBlockRows(GroupOf(task)), stride = 2 + head_dim;
    const Scratch s = Carve(scratch, task.layout->head_dim);
    Query queries[kBlockQueries];
    for (size_t row = row_begin; row < row_end; row += block_rows) {
      const size_t num_rows = std::min(block_rows, row_end - row);
      float* partial = partials + (row - row_begin) * group * stride;
      for (size_t r = 0; r < num_rows; r++)
        MakeQueries(task, kv_head, task.rows[row + r], r, s, queries);
      for (size_t q = 0; q < num_rows * group; q++) {
        queries[q].acc = partial + q * stride + 2;
        Reset(&queries[q].max, &queries[q].sum, queries[q].acc, head_dim);
      }
      WalkSegment(task, kv_head, task.rows + row, num_rows, segment, queries, s);
      for (size_t q = 0; q < num_rows * group; q++) {
        partial[q * stride] = queries[q].max;
        partial[q * stride + 1] = queries[q].sum;
      }
    }
  }

  static void MergeSegments(const AttentionTask& task, size_t kv_head, size_t row,
                            const float* partials, size_t segment_stride) {
    const size_t head_dim = task.layout->head_dim, group = GroupOf(task);
    const SegmentRange range = VisibleSegments(task.rows[row].position, task.window);
    Total totals[kBlockQueries];
    Partial segments[kBlockQueries];
    Total* of[kBlockQueries];
    for (size_t g = 0; g < group; g++) {
      totals[g].acc = task.rows[row].out + (kv_head * group + g) * head_dim;
      Reset(&totals[g].max, &totals[g].sum, totals[g].acc, head_dim);
      of[g] = &totals[g];
    }
    for (size_t i = 0; i <= range.last - range.first; i++) {
      for (size_t g = 0; g < group; g++) {
        const float* p = partials + i * segment_stride + g * (2 + head_dim);
        segments[g] = {.max = p[0], .sum = p[1], .acc = p + 2};
      }
      Merge(segments, of, group, head_dim);
    }
    for (size_t g = 0; g < group; g++) WriteOut(totals[g], head_dim, totals[g].acc);
  }

  static void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
                        const float* k, const float* v, size_t stride) {
    const PageLayout& layout = *kv.layout;
    for (size_t row = 0; row < num_rows; row++) {
      const size_t position = first_position + row, t = position % kPageTokens;
      std::byte* page = kv.pages[position / kPageTokens];
      for (size_t head = 0; head < layout.num_kv_heads; head++) {
        const size_t from = row * stride + head * layout.head_dim;
        Tile::Write(layout, t, k + from, v + from, page + layout.k_offset(layer, head),
                    page + layout.v_offset(layer, head),
                    reinterpret_cast<float*>(page + layout.scale_offset(layer, head)));
      }
    }
  }
};

// The kernels, which look up the type of the pages that they are given.
template <typename S>
struct AttentionTable {
  // Calls `use` with the AttentionOf of the type.
  template <typename Use>
  static void Pick(KvType type, const Use& use) {
    if (type == KvType::kF16) return use(AttentionOf<S, KvType::kF16>());
    if (type == KvType::kBf16) return use(AttentionOf<S, KvType::kBf16>());
    if (type == KvType::kI16) return use(AttentionOf<S, KvType::kI16>());
    use(AttentionOf<S, KvType::kQ8_0>());
  }

  static void Attend(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                     std::byte* scratch) {
    Pick(task.layout->type,
         [&](auto of) { of.Attend(task, kv_head, row_begin, row_end, scratch); });
  }
  static void AttendSegment(const AttentionTask& task, size_t kv_head, size_t row_begin,
                            size_t row_end, size_t segment, float* partials, std::byte* scratch) {
    Pick(task.layout->type, [&](auto of) {
      of.AttendSegment(task, kv_head, row_begin, row_end, segment, partials, scratch);
    });
  }
  static void MergeSegments(const AttentionTask& task, size_t kv_head, size_t row,
                            const float* partials, size_t segment_stride) {
    Pick(task.layout->type,
         [&](auto of) { of.MergeSegments(task, kv_head, row, partials, segment_stride); });
  }
  static void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
                        const float* k, const float* v, size_t stride) {
    Pick(kv.layout->type,
         [&](auto of) { of.WriteRows(kv, layer, first_position, num_rows, k, v, stride); });
  }
  static AttentionKernels Table(KvType fastest_type) {
    return {.fastest_type = fastest_type,
            .attend = Attend,
            .attend_segment = AttendSegment,
            .merge_segments = MergeSegments,
            .write_rows = WriteRows};
  }
};

}  // namespace trellis
