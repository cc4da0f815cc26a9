// Paged attention for a vector type S of simd_*.h. Included once by each attention_<isa>.cc.
//
// A block of query rows, times the heads that share one kv head, walks the pages of a segment. A
// page's keys and values are converted to f32 once and used by every query of the block, in
// register tiles of kTileRows queries. What a query computes does not depend on the tile or the
// block: its scores, its running maximum, its sums go page by page in order, and pages it does not
// see leave its state as it is (exp(0) is exactly 1, masked weights exactly 0, values finite).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "base/half.h"
#include "kernels/attention.h"
#include "kernels/simd_math.h"
#include "kernels/unroll.h"

namespace trellis {

// Rows of a block: queries (rows x heads of the group) fill about this many.
inline constexpr size_t kBlockQueries = 96;
// Below every real score, and finite: differences of it are numbers.
inline constexpr float kNoScore = -1e30f;

template <typename S>
struct AttentionOf {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr size_t kTileRows = S::kTileRows;
  static constexpr size_t kKeyVectors = S::kKeyVectors;
  static constexpr size_t kValueVectors = S::kValueVectors;
  static constexpr size_t kTileKeys = kKeyVectors * kLanes;
  static_assert(kPageTokens % kTileKeys == 0);

  // One query's softmax state: of the segment at hand, and of all merged before.
  struct State {
    float max, sum;
    float* acc;  // [head_dim]
  };

  struct Query {
    const float* q;
    size_t begin, end;  // positions it sees
    State segment;
  };

  // Pages of the block as f32.
  struct Scratch {
    float* keys;    // [head_dim, kPageTokens]
    float* values;  // [kPageTokens, head_dim]
    float* scores;  // [kTileRows, kPageTokens]
    float* accs;    // [kBlockQueries, 2, head_dim]: segment, total
  };

  static Scratch Carve(std::byte* scratch, size_t head_dim) {
    float* p = reinterpret_cast<float*>(scratch);
    const size_t matrix = head_dim * kPageTokens;
    return {.keys = p,
            .values = p + matrix,
            .scores = p + 2 * matrix,
            .accs = p + 2 * matrix + 16 * kPageTokens};
  }

  static void Fill(float* p, size_t n, float value) {
    for (size_t i = 0; i < n; i++) p[i] = value;
  }

  static void Reset(State* state, size_t head_dim) {
    state->max = kNoScore;
    state->sum = 0;
    Fill(state->acc, head_dim, 0);
  }

  static const uint16_t* PageData(const AttentionTask& task, size_t page) {
    return reinterpret_cast<const uint16_t*>(task.kv.pages[page]);
  }

  // Converts one page. Rows from `num_valid` on may be uninitialised: their values become 0, their
  // scores are masked.
  static void LoadPage(const AttentionTask& task, size_t kv_head, size_t page, size_t num_valid,
                       const Scratch& s) {
    const PageLayout& layout = *task.kv.layout;
    const uint16_t* data = PageData(task, page);
    const uint16_t* k = data + layout.k_offset(task.layer, kv_head);
    const uint16_t* v = data + layout.v_offset(task.layer, kv_head);
    const size_t n = layout.matrix_elements();
    for (size_t i = 0; i < n; i += kLanes) S::Store(s.keys + i, S::LoadHalf(k + i));
    const size_t valid =
        num_valid * layout.head_dim;  // head_dim is a multiple of 8, and so of every kLanes but 16
    size_t i = 0;
    for (; i + kLanes <= valid; i += kLanes) S::Store(s.values + i, S::LoadHalf(v + i));
    if (i < valid) {
      uint16_t tail[kLanes] = {};
      std::memcpy(tail, v + i, (valid - i) * sizeof(uint16_t));
      S::Store(s.values + i, S::LoadHalf(tail));
      i += kLanes;
    }
    if (i < n) Fill(s.values + i, n - i, 0);
  }

  template <size_t kRows>
  static void Scores(const Query* queries, size_t head_dim, const Scratch& s) {
    for (size_t key = 0; key < kPageTokens; key += kTileKeys) {
      F acc[kRows][kKeyVectors];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (size_t j = 0; j < kKeyVectors; j++) acc[r][j] = S::Set(0);
      }
      for (size_t d = 0; d < head_dim; d++) {
        F k[kKeyVectors];
        TRELLIS_UNROLL
        for (size_t j = 0; j < kKeyVectors; j++)
          k[j] = S::Load(s.keys + d * kPageTokens + key + j * kLanes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kRows; r++) {
          const F q = S::Set(queries[r].q[d]);
          TRELLIS_UNROLL
          for (size_t j = 0; j < kKeyVectors; j++) acc[r][j] = S::MulAdd(q, k[j], acc[r][j]);
        }
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kRows; r++) {
        TRELLIS_UNROLL
        for (size_t j = 0; j < kKeyVectors; j++)
          S::Store(s.scores + r * kPageTokens + key + j * kLanes, acc[r][j]);
      }
    }
  }

  // Scores -> weights in place; updates max and sum; returns what the accumulator is to be scaled
  // by.
  static float Softmax(const AttentionTask& task, size_t first_position, Query* query,
                       float* scores) {
    const F scale = S::Set(task.scale);
    for (size_t t = 0; t < kPageTokens; t += kLanes) {
      F x = S::Mul(S::Load(scores + t), scale);
      if (task.softcap > 0) {
        const F cap = S::Set(task.softcap);
        x = S::Mul(Tanh<S>(S::Div(x, cap)), cap);
      }
      S::Store(scores + t, x);
    }
    // Positions outside what the query sees.
    const size_t last = first_position + kPageTokens;
    if (query->begin > first_position) {
      Fill(scores, std::min(query->begin - first_position, kPageTokens), -INFINITY);
    }
    if (query->end < last) {
      const size_t seen = query->end > first_position ? query->end - first_position : 0;
      Fill(scores + seen, kPageTokens - seen, -INFINITY);
    }
    F max = S::Load(scores);
    for (size_t t = kLanes; t < kPageTokens; t += kLanes) max = S::Max(max, S::Load(scores + t));
    State& state = query->segment;
    const float new_max = std::max(state.max, S::MaxOf(max));
    const F shift = S::Set(new_max);
    F sum = S::Set(0);
    for (size_t t = 0; t < kPageTokens; t += kLanes) {
      const F weight = Exp<S>(S::Sub(S::Load(scores + t), shift));
      S::Store(scores + t, weight);
      sum = S::Add(sum, weight);
    }
    const float alpha = ExpOf(state.max - new_max);
    state.sum = std::fma(state.sum, alpha, S::Sum(sum));
    state.max = new_max;
    return alpha;
  }

  static float ExpOf(float x) {
    float lanes[kLanes];
    S::Store(lanes, Exp<S>(S::Set(x)));
    return lanes[0];
  }

  template <size_t kRows>
  static void Accumulate(Query* queries, const float* alphas, size_t head_dim, const Scratch& s) {
    size_t d = 0;
    for (; d + kValueVectors * kLanes <= head_dim; d += kValueVectors * kLanes) {
      AccumulateColumns<kRows, kValueVectors>(queries, alphas, head_dim, d, s);
    }
    for (; d + kLanes <= head_dim; d += kLanes)
      AccumulateColumns<kRows, 1>(queries, alphas, head_dim, d, s);
    for (; d < head_dim; d++) {  // head_dim 8 or 24 on 16 lanes
      TRELLIS_UNROLL
      for (size_t r = 0; r < kRows; r++) {
        float acc = queries[r].segment.acc[d] * alphas[r];
        for (size_t t = 0; t < kPageTokens; t++) {
          acc = std::fma(s.scores[r * kPageTokens + t], s.values[t * head_dim + d], acc);
        }
        queries[r].segment.acc[d] = acc;
      }
    }
  }

  template <size_t kRows, size_t kVectors>
  static void AccumulateColumns(Query* queries, const float* alphas, size_t head_dim, size_t d,
                                const Scratch& s) {
    F acc[kRows][kVectors];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kRows; r++) {
      const F alpha = S::Set(alphas[r]);
      TRELLIS_UNROLL
      for (size_t j = 0; j < kVectors; j++) {
        acc[r][j] = S::Mul(S::Load(queries[r].segment.acc + d + j * kLanes), alpha);
      }
    }
    for (size_t t = 0; t < kPageTokens; t++) {
      F v[kVectors];
      TRELLIS_UNROLL
      for (size_t j = 0; j < kVectors; j++)
        v[j] = S::Load(s.values + t * head_dim + d + j * kLanes);
      TRELLIS_UNROLL
      for (size_t r = 0; r < kRows; r++) {
        const F p = S::Set(s.scores[r * kPageTokens + t]);
        TRELLIS_UNROLL
        for (size_t j = 0; j < kVectors; j++) acc[r][j] = S::MulAdd(p, v[j], acc[r][j]);
      }
    }
    TRELLIS_UNROLL
    for (size_t r = 0; r < kRows; r++) {
      TRELLIS_UNROLL
      for (size_t j = 0; j < kVectors; j++)
        S::Store(queries[r].segment.acc + d + j * kLanes, acc[r][j]);
    }
  }

  // Up to kRows queries over the page that Scratch holds.
  template <size_t kRows>
  static void Tile(const AttentionTask& task, size_t first_position, Query* queries, size_t num,
                   const Scratch& s) {
    if constexpr (kRows > 1) {
      if (num < kRows) return Tile<kRows - 1>(task, first_position, queries, num, s);
    }
    const size_t head_dim = task.kv.layout->head_dim;
    Scores<kRows>(queries, head_dim, s);
    float alphas[kRows];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kRows; r++) {
      alphas[r] = Softmax(task, first_position, &queries[r], s.scores + r * kPageTokens);
    }
    Accumulate<kRows>(queries, alphas, head_dim, s);
  }

  // The queries over the pages of one segment. [begin, end): positions that any of them sees.
  static void WalkSegment(const AttentionTask& task, size_t kv_head, size_t segment, size_t begin,
                          size_t end, Query* queries, size_t num, const Scratch& s) {
    const size_t from = std::max(begin, segment * kSegmentTokens);
    const size_t to = std::min(end, (segment + 1) * kSegmentTokens);
    for (size_t page = from / kPageTokens; page * kPageTokens < to; page++) {
      const size_t first_position = page * kPageTokens;
      LoadPage(task, kv_head, page, std::min(kPageTokens, end - first_position), s);
      for (size_t q = 0; q < num; q += kTileRows) {
        Tile<kTileRows>(task, first_position, queries + q, std::min(kTileRows, num - q), s);
      }
    }
  }

  // total <- total then segment, in this order.
  static void Merge(float max, float sum, const float* acc, State* total, size_t head_dim) {
    const float new_max = std::max(total->max, max);
    const float a = ExpOf(total->max - new_max), b = ExpOf(max - new_max);
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

  static void WriteOut(const State& total, size_t head_dim, float* out) {
    const float inverse = 1.0f / total.sum;
    for (size_t d = 0; d < head_dim; d++) out[d] = total.acc[d] * inverse;
  }

  static Query MakeQuery(const AttentionTask& task, size_t head, size_t row) {
    const size_t position = task.first_position + row;
    const size_t begin =
        task.window == 0 || position < task.window ? 0 : position + 1 - task.window;
    return {.q = task.q + row * task.q_stride + head * task.kv.layout->head_dim,
            .begin = begin,
            .end = position + 1,
            .segment = {}};
  }

  static void AttendBlock(const AttentionTask& task, size_t kv_head, size_t row_begin,
                          size_t row_end, const Scratch& s) {
    const size_t head_dim = task.kv.layout->head_dim;
    const size_t group = task.num_heads / task.kv.layout->num_kv_heads;
    Query queries[kBlockQueries];
    State totals[kBlockQueries];
    size_t num = 0;
    for (size_t row = row_begin; row < row_end; row++) {
      for (size_t g = 0; g < group; g++, num++) {
        queries[num] = MakeQuery(task, kv_head * group + g, row);
        queries[num].segment.acc = s.accs + 2 * num * head_dim;
        totals[num].acc = s.accs + (2 * num + 1) * head_dim;
        Reset(&totals[num], head_dim);
      }
    }
    const size_t begin = queries[0].begin, end = queries[num - 1].end;
    for (size_t segment = begin / kSegmentTokens; segment * kSegmentTokens < end; segment++) {
      for (size_t q = 0; q < num; q++) Reset(&queries[q].segment, head_dim);
      WalkSegment(task, kv_head, segment, begin, end, queries, num, s);
      for (size_t q = 0; q < num; q++) {
        const State& state = queries[q].segment;
        Merge(state.max, state.sum, state.acc, &totals[q], head_dim);
      }
    }
    for (size_t q = 0; q < num; q++) {
      float* out = task.out + (row_begin + q / group) * task.out_stride +
                   (kv_head * group + q % group) * head_dim;
      WriteOut(totals[q], head_dim, out);
    }
  }

  static void Attend(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                     std::byte* scratch) {
    const Scratch s = Carve(scratch, task.kv.layout->head_dim);
    const size_t group = task.num_heads / task.kv.layout->num_kv_heads;
    TRELLIS_CHECK(group <= kBlockQueries);
    const size_t block_rows = kBlockQueries / group;
    for (size_t row = row_begin; row < row_end; row += block_rows) {
      AttendBlock(task, kv_head, row, std::min(row + block_rows, row_end), s);
    }
  }

  static void AttendSegment(const AttentionTask& task, size_t kv_head, size_t row, size_t segment,
                            float* partial, std::byte* scratch) {
    const size_t head_dim = task.kv.layout->head_dim;
    const Scratch s = Carve(scratch, head_dim);
    const size_t group = task.num_heads / task.kv.layout->num_kv_heads;
    TRELLIS_CHECK(group <= kBlockQueries);
    Query queries[kBlockQueries];
    for (size_t g = 0; g < group; g++) {
      queries[g] = MakeQuery(task, kv_head * group + g, row);
      queries[g].segment.acc = partial + g * (2 + head_dim) + 2;
      Reset(&queries[g].segment, head_dim);
    }
    WalkSegment(task, kv_head, segment, queries[0].begin, queries[0].end, queries, group, s);
    for (size_t g = 0; g < group; g++) {
      partial[g * (2 + head_dim)] = queries[g].segment.max;
      partial[g * (2 + head_dim) + 1] = queries[g].segment.sum;
    }
  }

  static void MergeSegments(const AttentionTask& task, size_t kv_head, size_t row,
                            const float* partials, size_t num_segments) {
    const size_t head_dim = task.kv.layout->head_dim;
    const size_t group = task.num_heads / task.kv.layout->num_kv_heads;
    const size_t stride = 2 + head_dim;
    for (size_t g = 0; g < group; g++) {
      float* out = task.out + row * task.out_stride + (kv_head * group + g) * head_dim;
      State total{.max = kNoScore, .sum = 0, .acc = out};
      Fill(out, head_dim, 0);
      for (size_t i = 0; i < num_segments; i++) {
        const float* p = partials + (i * group + g) * stride;
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
          ToHalf(k + row * stride + head * head_dim + d, n,
                 [&](size_t i, uint16_t h) { k_to[(d + i) * kPageTokens] = h; });
          ToHalf(v + row * stride + head * head_dim + d, n,
                 [&](size_t i, uint16_t h) { v_to[d + i] = h; });
        }
      }
    }
  }

  static F Saturate(F x) {
    const F number = S::IfGreaterEqual(x, x, x);  // NaN is not
    return S::Max(S::Min(number, S::Set(kMaxHalf)), S::Set(-kMaxHalf));
  }

  template <typename Put>
  static void ToHalf(const float* x, size_t n, const Put& put) {
    float pad[kLanes] = {};
    uint16_t half[kLanes];
    if (n == kLanes) {
      S::StoreHalf(half, Saturate(S::Load(x)));
    } else {
      for (size_t i = 0; i < n; i++) pad[i] = x[i];
      S::StoreHalf(half, Saturate(S::Load(pad)));
    }
    for (size_t i = 0; i < n; i++) put(i, half[i]);
  }

  static AttentionKernels Table() {
    return {.attend = Attend,
            .attend_segment = AttendSegment,
            .merge_segments = MergeSegments,
            .write_rows = WriteRows};
  }
};

}  // namespace trellis
