// The oracle: attention as its definition says, one query at a time, in the order that attention.h
// states.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "kernels/kernels_internal.h"

namespace trellis {
namespace {

constexpr float kNoScore = -1e30f;

struct State {
  float max = kNoScore;
  float sum = 0;
  std::vector<float> acc;
};

// One kv head of a page.
struct Head {
  Head(const PageLayout& layout, const std::byte* page, size_t layer, size_t kv_head)
      : layout(layout),
        k(reinterpret_cast<const uint16_t*>(page) + layout.k_offset(layer, kv_head)),
        v(k + layout.matrix_elements()),
        scales(reinterpret_cast<const float*>(v + layout.matrix_elements())) {}

  float Key(size_t t, size_t d) const { return ToFloat(k[layout.k_index(t, d)], t); }
  float Value(size_t t, size_t d) const {
    return ToFloat(v[layout.v_index(t, d)], kPageTokens + t);
  }
  float ToFloat(uint16_t bits, size_t scale) const {
    if (layout.type == KvType::kF16) return HalfToFloat(bits);
    if (layout.type == KvType::kBf16) return Bf16ToFloat(bits);
    return scales[scale] * static_cast<int16_t>(bits);
  }

  const PageLayout& layout;
  const uint16_t* k;
  const uint16_t* v;
  const float* scales;
};

Head HeadAt(const AttentionTask& task, size_t kv_head, const AttentionRow& row, size_t position) {
  return Head(*task.layout, row.pages[position / kPageTokens], task.layer, kv_head);
}

float Score(const AttentionTask& task, size_t kv_head, const AttentionRow& row, const float* q,
            size_t position) {
  const Head head = HeadAt(task, kv_head, row, position);
  float dot = 0;
  for (size_t d = 0; d < task.layout->head_dim; d++)
    dot = std::fma(q[d], head.Key(position % kPageTokens, d), dot);
  const float score = dot * task.scale;
  return task.softcap > 0 ? std::tanh(score / task.softcap) * task.softcap : score;
}

// Positions [from, to), all in one page.
void AttendPage(const AttentionTask& task, size_t kv_head, const AttentionRow& row, const float* q,
                size_t from, size_t to, State* state) {
  const Head head = HeadAt(task, kv_head, row, from);
  float scores[kPageTokens];
  float max = state->max;
  for (size_t p = from; p < to; p++) {
    scores[p - from] = Score(task, kv_head, row, q, p);
    max = std::max(max, scores[p - from]);
  }
  const float alpha = std::exp(state->max - max);
  state->max = max;
  state->sum *= alpha;
  for (float& a : state->acc) a *= alpha;
  for (size_t p = from; p < to; p++) {
    const float weight = std::exp(scores[p - from] - max);
    state->sum += weight;
    for (size_t d = 0; d < task.layout->head_dim; d++)
      state->acc[d] = std::fma(weight, head.Value(p % kPageTokens, d), state->acc[d]);
  }
}

State AttendOneSegment(const AttentionTask& task, size_t kv_head, size_t head,
                       const AttentionRow& row, size_t segment) {
  const size_t head_dim = task.layout->head_dim;
  const size_t begin =
      task.window == 0 || row.position < task.window ? 0 : row.position + 1 - task.window;
  const size_t from = std::max(begin, segment * kSegmentTokens);
  const size_t to = std::min(row.position + 1, (segment + 1) * kSegmentTokens);
  State state;
  state.acc.resize(head_dim);
  for (size_t p = from; p < to;) {
    const size_t page_end = std::min(to, (p / kPageTokens + 1) * kPageTokens);
    AttendPage(task, kv_head, row, row.q + head * head_dim, p, page_end, &state);
    p = page_end;
  }
  return state;
}

void Merge(float max, float sum, const float* acc, State* total) {
  const float new_max = std::max(total->max, max);
  const float a = std::exp(total->max - new_max), b = std::exp(max - new_max);
  total->max = new_max;
  total->sum = std::fma(total->sum, a, sum * b);
  for (size_t d = 0; d < total->acc.size(); d++)
    total->acc[d] = std::fma(total->acc[d], a, acc[d] * b);
}

void WriteOut(const State& total, float* out) {
  const float inverse = 1.0f / total.sum;
  for (size_t d = 0; d < total.acc.size(); d++) out[d] = total.acc[d] * inverse;
}

size_t GroupOf(const AttentionTask& task) {
  return task.num_heads / task.layout->num_kv_heads;
}

void Attend(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
            std::byte*) {
  const size_t head_dim = task.layout->head_dim;
  for (size_t r = row_begin; r < row_end; r++) {
    const AttentionRow& row = task.rows[r];
    const SegmentRange range = VisibleSegments(row.position, task.window);
    for (size_t g = 0; g < GroupOf(task); g++) {
      const size_t head = kv_head * GroupOf(task) + g;
      State total;
      total.acc.resize(head_dim);
      for (size_t segment = range.first; segment <= range.last; segment++) {
        const State state = AttendOneSegment(task, kv_head, head, row, segment);
        Merge(state.max, state.sum, state.acc.data(), &total);
      }
      WriteOut(total, row.out + head * head_dim);
    }
  }
}

void AttendSegment(const AttentionTask& task, size_t kv_head, size_t row_begin, size_t row_end,
                   size_t segment, float* partials, std::byte*) {
  for (size_t row = row_begin; row < row_end; row++) {
    for (size_t g = 0; g < GroupOf(task); g++) {
      const State state =
          AttendOneSegment(task, kv_head, kv_head * GroupOf(task) + g, task.rows[row], segment);
      partials[0] = state.max;
      partials[1] = state.sum;
      partials = std::copy(state.acc.begin(), state.acc.end(), partials + 2);
    }
  }
}

void MergeSegments(const AttentionTask& task, size_t kv_head, size_t row, const float* partials,
                   size_t segment_stride) {
  const size_t head_dim = task.layout->head_dim;
  const SegmentRange range = VisibleSegments(task.rows[row].position, task.window);
  for (size_t g = 0; g < GroupOf(task); g++) {
    State total;
    total.acc.resize(head_dim);
    for (size_t i = 0; i <= range.last - range.first; i++) {
      const float* p = partials + i * segment_stride + g * (2 + head_dim);
      Merge(p[0], p[1], p + 2, &total);
    }
    WriteOut(total, task.rows[row].out + (kv_head * GroupOf(task) + g) * head_dim);
  }
}

float Finite(KvType type, float x) {
  const float most = type == KvType::kBf16 ? kMaxBf16Kv : kMaxHalf;
  return std::isnan(x) ? 0 : std::clamp(x, -most, most);
}

uint16_t FromFloat(KvType type, float x, float scale) {
  if (type == KvType::kF16) return FloatToHalf(x);
  if (type == KvType::kBf16) return FloatToBf16(x);
  return static_cast<uint16_t>(static_cast<int16_t>(std::nearbyint(x / scale)));
}

// What integers of a key or a value are multiplied by.
float ScaleOf(const float* x, size_t head_dim, bool is_key) {
  float most = 0, squares = 0;
  for (size_t d = 0; d < head_dim; d++) {
    const float kept = Finite(KvType::kI16, x[d]);
    most = std::max(most, std::abs(kept));
    squares += kept * kept;
  }
  if (!is_key) return std::max(most / I16Rows::kValueMost, I16Rows::kLeastScale);
  return std::max(
      {most / I16Rows::kKeyMost, std::sqrt(squares) / I16Rows::kKeyNorm, I16Rows::kLeastScale});
}

void WriteHead(const PageLayout& layout, size_t t, const float* k, const float* v, uint16_t* head) {
  uint16_t* values = head + layout.matrix_elements();
  float k_scale = 1, v_scale = 1;
  if (layout.type == KvType::kI16) {
    auto* scales = reinterpret_cast<float*>(values + layout.matrix_elements());
    k_scale = scales[t] = ScaleOf(k, layout.head_dim, true);
    v_scale = scales[kPageTokens + t] = ScaleOf(v, layout.head_dim, false);
  }
  for (size_t d = 0; d < layout.head_dim; d++) {
    head[layout.k_index(t, d)] = FromFloat(layout.type, Finite(layout.type, k[d]), k_scale);
    values[layout.v_index(t, d)] = FromFloat(layout.type, Finite(layout.type, v[d]), v_scale);
  }
}

void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
               const float* k, const float* v, size_t stride) {
  const PageLayout& layout = *kv.layout;
  for (size_t row = 0; row < num_rows; row++) {
    const size_t position = first_position + row;
    auto* page = reinterpret_cast<uint16_t*>(kv.pages[position / kPageTokens]);
    for (size_t head = 0; head < layout.num_kv_heads; head++) {
      const size_t from = row * stride + head * layout.head_dim;
      WriteHead(layout, position % kPageTokens, k + from, v + from,
                page + layout.k_offset(layer, head));
    }
  }
}

}  // namespace

AttentionKernels ScalarAttentionKernels() {
  return {.fastest_type = KvType::kF16,
          .attend = Attend,
          .attend_segment = AttendSegment,
          .merge_segments = MergeSegments,
          .write_rows = WriteRows};
}

}  // namespace trellis
