// Paged attention for a vector type S of simd_*.h. Included once by each attention_<isa>.cc.
//
// A block of query rows, times the heads that share one kv head, walks the pages of a segment, page
// index by page index. Neighbouring rows whose page at an index is the same one share the visit: it
// is read once and used by all of their queries, in register tiles (attention_tile.h). Every query
// visits exactly the pages that it sees something of, in order, so what else is in the block
// changes nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "kernels/attention.h"
#include "kernels/attention_tile.h"
#include "kernels/simd_math.h"

namespace trellis {

// Rows of a block: queries (rows x heads of the group) fill about this many.
inline constexpr size_t kBlockQueries = 96;
// Keeps rows of queries, which are read side by side, out of each other's cache sets.
inline constexpr size_t kQueryPad = 8;

template <typename S, KvType kType>
struct AttentionOf {
  using F = typename S::F;
  using Tile = AttentionTile<S, kType>;
  using Query = typename Tile::Query;
  static constexpr size_t kLanes = S::kLanes;

  // Softmax state of one query over all segments merged so far.
  struct Total {
    float max, sum;
    float* acc;  // [head_dim]
  };

  struct Scratch {
    float* scores;  // [kTileRows, kPageTokens]
    float* q;       // [kBlockQueries, head_dim + kQueryPad]
    float* accs;    // [kBlockQueries, 2, head_dim]: segment, total
  };

  static Scratch Carve(std::byte* scratch, size_t head_dim) {
    float* p = reinterpret_cast<float*>(scratch);
    return {.scores = p,
            .q = p + Tile::kRows * kPageTokens,
            .accs = p + Tile::kRows * kPageTokens + kBlockQueries * (head_dim + kQueryPad)};
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
      group_ = task.num_heads / layout.num_kv_heads;
      size_t begin = (segment + 1) * kSegmentTokens, end = 0;
      for (size_t r = 0; r < num_rows; r++) {
        begin = std::min(begin, queries[r * group_].begin);
        end = std::max(end, queries[r * group_].end);
      }
      page_ = std::max(begin, segment * kSegmentTokens) / kPageTokens;
      end_page_ = PagesFor(std::min(end, (segment + 1) * kSegmentTokens));
    }

    // A page and the queries that share it.
    struct Visit {
      PageView page;
      Query* queries[kBlockQueries];
      size_t num_queries;
    };
    // False when there is none left.
    bool Next(Visit* visit) {
      for (; page_ < end_page_; page_++, row_ = 0) {
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
      return query.begin < (page_ + 1) * kPageTokens && query.end > page_ * kPageTokens;
    }

    void Take(Visit* visit) {
      const std::byte* data = rows_[row_].pages[page_];
      const size_t first_position = page_ * kPageTokens;
      size_t end = 0;
      visit->num_queries = 0;
      for (; row_ < num_rows_; row_++) {
        if (!Sees(row_)) continue;
        if (rows_[row_].pages[page_] != data) break;
        end = std::max(end, queries_[row_ * group_].end);
        for (size_t g = 0; g < group_; g++)
          visit->queries[visit->num_queries++] = &queries_[row_ * group_ + g];
      }
      const auto* elements = reinterpret_cast<const uint16_t*>(data);
      visit->page = {.keys = elements + keys_,
                     .values = elements + values_,
                     .next_keys = elements + keys_,
                     .next_values = elements + values_,
                     .first_position = first_position,
                     .num_valid = std::min(kPageTokens, end - first_position)};
    }

    const AttentionTask& task_;
    const AttentionRow* rows_;
    size_t num_rows_;
    Query* queries_;
    size_t group_, keys_, values_;  // offsets in a page
    size_t page_, end_page_, row_ = 0;
  };

  static void WalkSegment(const AttentionTask& task, size_t kv_head, const AttentionRow* rows,
                          size_t num_rows, size_t segment, Query* queries, const Scratch& s) {
    const size_t head_dim = task.layout->head_dim;
    const typename Tile::Scaling scaling(task.scale, task.softcap);
    Walk walk(task, kv_head, rows, num_rows, segment, queries);
    typename Walk::Visit visits[2];
    size_t at = 0;
    for (bool more = walk.Next(&visits[0]); more; at = 1 - at) {
      typename Walk::Visit& visit = visits[at];
      more = walk.Next(&visits[1 - at]);
      if (more) {
        visit.page.next_keys = visits[1 - at].page.keys;
        visit.page.next_values = visits[1 - at].page.values;
      }
      Tile::Visit(scaling.cap, head_dim, visit.page, visit.queries, visit.num_queries, s.scores);
    }
  }

  static void Fill(float* p, size_t n, float value) {
    for (size_t i = 0; i < n; i++) p[i] = value;
  }

  static void Reset(float* max, float* sum, float* acc, size_t head_dim) {
    *max = kNoScore, *sum = 0;
    Fill(acc, head_dim, 0);
  }

  // total <- total then segment, in this order.
  static void Merge(float max, float sum, const float* acc, Total* total, size_t head_dim) {
    const float new_max = std::max(total->max, max);
    float fall[kLanes < 2 ? 2 : kLanes] = {total->max - new_max, max - new_max};
    S::Store(fall, Exp2OfNegative<S>(S::Load(fall)));
    const float a = fall[0], b = fall[1];
    total->sum = std::fma(total->sum, a, sum * b);
    total->max = new_max;
    const F va = S::Set(a), vb = S::Set(b);
    size_t d = 0;
    for (; d + kLanes <= head_dim; d += kLanes) {
      S::Store(total->acc + d,
               S::MulAdd(S::Load(total->acc + d), va, S::Mul(S::Load(acc + d), vb)));
    }
    for (; d < head_dim; d++) total->acc[d] = std::fma(total->acc[d], a, acc[d] * b);
  }

  // A zero's sign may tell of weights of 0 that another block did not multiply by: + 0 drops it.
  static void WriteOut(const Total& total, size_t head_dim, float* out) {
    const float inverse = 1.0f / total.sum;
    for (size_t d = 0; d < head_dim; d++) out[d] = total.acc[d] * inverse + 0.0f;
  }

  static void MakeQueries(const AttentionTask& task, size_t kv_head, const AttentionRow& row,
                          float* q, Query* queries) {
    const size_t head_dim = task.layout->head_dim, group = GroupOf(task);
    const typename Tile::Scaling scaling(task.scale, task.softcap);
    for (size_t g = 0; g < group; g++) {
      const float* from = row.q + (kv_head * group + g) * head_dim;
      for (size_t d = 0; d < head_dim; d++) q[d] = from[d] * scaling.query;
      queries[g].q = q;
      q += head_dim + kQueryPad;
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
      MakeQueries(task, kv_head, rows[r], s.q + r * group * (head_dim + kQueryPad),
                  queries + r * group);
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
      for (size_t q = 0; q < num; q++) {
        const SegmentRange range = VisibleSegments(rows[q / group].position, task.window);
        if (segment < range.first || segment > range.last) continue;
        Merge(queries[q].max, queries[q].sum, queries[q].acc, &totals[q], head_dim);
      }
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
        MakeQueries(task, kv_head, task.rows[row + r], s.q + r * group * (head_dim + kQueryPad),
                    queries + r * group);
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
    for (size_t g = 0; g < group; g++) {
      float* out = task.rows[row].out + (kv_head * group + g) * head_dim;
      Total total{.max = 0, .sum = 0, .acc = out};
      Reset(&total.max, &total.sum, out, head_dim);
      for (size_t i = 0; i <= range.last - range.first; i++) {
        const float* p = partials + i * segment_stride + g * (2 + head_dim);
        Merge(p[0], p[1], p + 2, &total, head_dim);
      }
      WriteOut(total, head_dim, out);
    }
  }

  static void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
                        const float* k, const float* v, size_t stride) {
    const PageLayout& layout = *kv.layout;
    const size_t head_dim = layout.head_dim;
    for (size_t row = 0; row < num_rows; row++) {
      const size_t position = first_position + row, t = position % kPageTokens;
      auto* page = reinterpret_cast<uint16_t*>(kv.pages[position / kPageTokens]);
      for (size_t head = 0; head < layout.num_kv_heads; head++) {
        uint16_t* k_to = page + layout.k_offset(layer, head) + t;
        uint16_t* v_to = page + layout.v_offset(layer, head) + t * head_dim;
        for (size_t d = 0; d < head_dim; d += kLanes) {
          const size_t n = std::min(kLanes, head_dim - d);
          Narrow(k + row * stride + head * head_dim + d, n,
                 [&](size_t i, uint16_t h) { k_to[(d + i) * kPageTokens] = h; });
          Narrow(v + row * stride + head * head_dim + d, n,
                 [&](size_t i, uint16_t h) { v_to[d + i] = h; });
        }
      }
    }
  }

  static F Saturate(F x) {
    constexpr float kMost = kType == KvType::kF16 ? kMaxHalf : kMaxBf16Kv;
    const F number = S::IfGreaterEqual(x, x, x);  // NaN is not
    return S::Max(S::Min(number, S::Set(kMost)), S::Set(-kMost));
  }

  // Gives put(i, bits) element i of x, i < n <= kLanes.
  template <typename Put>
  static void Narrow(const float* x, size_t n, const Put& put) {
    float padded[kLanes] = {};
    uint16_t bits[kLanes];
    for (size_t i = 0; i < n && n < kLanes; i++) padded[i] = x[i];
    const F kept = Saturate(S::Load(n == kLanes ? x : padded));
    if constexpr (kType == KvType::kF16) {
      S::StoreHalf(bits, kept);
    } else {
      S::Store(padded, kept);
      for (size_t i = 0; i < kLanes; i++) bits[i] = FloatToBf16(padded[i]);
    }
    for (size_t i = 0; i < n; i++) put(i, bits[i]);
  }
};

// The kernels, which look up the type of the pages that they are given.
template <typename S>
struct AttentionTable {
  using F16 = AttentionOf<S, KvType::kF16>;
  using Bf16 = AttentionOf<S, KvType::kBf16>;

  static void Attend(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                     std::byte* scratch) {
    const bool is_f16 = task.layout->type == KvType::kF16;
    (is_f16 ? F16::Attend : Bf16::Attend)(task, kv_head, row_begin, row_end, scratch);
  }
  static void AttendSegment(const AttentionTask& task, size_t kv_head, size_t row_begin,
                            size_t row_end, size_t segment, float* partials, std::byte* scratch) {
    const bool is_f16 = task.layout->type == KvType::kF16;
    (is_f16 ? F16::AttendSegment : Bf16::AttendSegment)(task, kv_head, row_begin, row_end, segment,
                                                        partials, scratch);
  }
  static void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
                        const float* k, const float* v, size_t stride) {
    const bool is_f16 = kv.layout->type == KvType::kF16;
    (is_f16 ? F16::WriteRows : Bf16::WriteRows)(kv, layer, first_position, num_rows, k, v, stride);
  }
  static AttentionKernels Table() {
    return {.attend = Attend,
            .attend_segment = AttendSegment,
            .merge_segments = F16::MergeSegments,  // states are f32
            .write_rows = WriteRows};
  }
};

}  // namespace trellis
