// The oracle: attention as its definition says, one query at a time, in the order that attention.h
// states. Where pages hold rotated rows, queries are rotated and the sum of values is rotated back.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/half.h"
#include "kernels/kernels_internal.h"
#include "kernels/rotation.h"

namespace trellis {
namespace {

constexpr float kNoScore = -1e30f;

struct State {
  float max = kNoScore;
  float sum = 0;
  std::vector<float> acc;
};

// x [head_dim] rotated, or as it is; times `factor`.
std::vector<float> Rotated(const PageLayout& layout, const float* x, float factor) {
  const size_t n = layout.type == KvType::kQ8_0 ? RotationBlock(layout.head_dim) : 1;
  std::vector<float> rotated(layout.head_dim);
  for (size_t i = 0; i < layout.head_dim; i++) {
    float sum = 0;
    for (size_t j = 0; j < n; j++) sum += RotationSign(i % n, j) * x[i / n * n + j];
    rotated[i] = sum * factor;
  }
  return rotated;
}
float InverseRotation(const PageLayout& layout) {
  return layout.type == KvType::kQ8_0 ? 1 / static_cast<float>(RotationBlock(layout.head_dim)) : 1;
}

// One kv head of a page.
struct Head {
  Head(const PageLayout& layout, const std::byte* page, size_t layer, size_t kv_head)
      : layout(layout),
        k(page + layout.k_offset(layer, kv_head)),
        v(page + layout.v_offset(layer, kv_head)),
        scales(reinterpret_cast<const float*>(page + layout.scale_offset(layer, kv_head))) {}

  float Key(size_t t, size_t d) const { return ToFloat(k, layout.k_index(t, d), t); }
  float Value(size_t t, size_t d) const {
    return ToFloat(v, layout.v_index(t, d), kPageTokens + t);
  }
  float ToFloat(const std::byte* matrix, size_t i, size_t scale) const {
    if (layout.type == KvType::kQ8_0)
      return scales[scale] * static_cast<float>(static_cast<int>(matrix[i]) - Q8Rows::kZero);
    const uint16_t bits = reinterpret_cast<const uint16_t*>(matrix)[i];
    if (layout.type == KvType::kF16) return HalfToFloat(bits);
    if (layout.type == KvType::kBf16) return Bf16ToFloat(bits);
    return scales[scale] * static_cast<int16_t>(bits);
  }

  const PageLayout& layout;
  const std::byte* k;
  const std::byte* v;
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
  const std::vector<float> q =
      Rotated(*task.layout, row.q + head * head_dim, InverseRotation(*task.layout));
  State state;
  state.acc.resize(head_dim);
  for (size_t p = from; p < to;) {
    const size_t page_end = std::min(to, (p / kPageTokens + 1) * kPageTokens);
    AttendPage(task, kv_head, row, q.data(), p, page_end, &state);
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

void WriteOut(const PageLayout& layout, const State& total, float* out) {
  const std::vector<float> acc =
      Rotated(layout, total.acc.data(), InverseRotation(layout) / total.sum);
  std::copy(acc.begin(), acc.end(), out);
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
      WriteOut(*task.layout, total, row.out + head * head_dim);
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
    WriteOut(*task.layout, total, task.rows[row].out + (kv_head * GroupOf(task) + g) * head_dim);
  }
}

float Finite(KvType type, float x) {
  const float most = type == KvType::kBf16 ? kMaxBf16Kv : kMaxHalf;
  return std::isnan(x) ? 0 : std::clamp(x, -most, most);
}

void WriteElement(KvType type, float x, float scale, std::byte* matrix, size_t i) {
  const auto integer = [&] { return static_cast<int>(std::nearbyint(x / scale)); };
  auto* halves = reinterpret_cast<uint16_t*>(matrix);
  switch (type) {
    case KvType::kF16:
      halves[i] = FloatToHalf(x);
      return;
    case KvType::kBf16:
      halves[i] = FloatToBf16(x);
      return;
    case KvType::kI16:
      halves[i] = static_cast<uint16_t>(integer());
      return;
    case KvType::kQ8_0:
      matrix[i] = static_cast<std::byte>(integer() + Q8Rows::kZero);
      return;
  }
}

// What the integers of a key or a value are multiplied by.
float ScaleOf(KvType type, const std::vector<float>& x, bool is_key) {
  float most = 0, squares = 0;
  for (const float element : x)
    most = std::max(most, std::abs(element)), squares += element * element;
  if (type == KvType::kQ8_0) return std::max(most / Q8Rows::kMost, kLeastKvScale);
  if (!is_key) return std::max(most / I16Rows::kValueMost, kLeastKvScale);
  return std::max(
      {most / I16Rows::kKeyMost, std::sqrt(squares) / I16Rows::kKeyNorm, kLeastKvScale});
}

std::vector<float> Kept(const PageLayout& layout, const float* x) {
  std::vector<float> kept(x, x + layout.head_dim);
  for (float& element : kept) element = Finite(layout.type, element);
  return Rotated(layout, kept.data(), 1);
}

void WriteHead(const PageLayout& layout, size_t t, const float* k, const float* v, std::byte* keys,
               std::byte* values, float* scales) {
  const std::vector<float> key = Kept(layout, k), value = Kept(layout, v);
  const float k_scale = ScaleOf(layout.type, key, true),
              v_scale = ScaleOf(layout.type, value, false);
  if (layout.has_scales()) scales[t] = k_scale, scales[kPageTokens + t] = v_scale;
  for (size_t d = 0; d < layout.head_dim; d++) {
    WriteElement(layout.type, key[d], k_scale, keys, layout.k_index(t, d));
    WriteElement(layout.type, value[d], v_scale, values, layout.v_index(t, d));
  }
}

void WriteRows(const PagedKv& kv, size_t layer, size_t first_position, size_t num_rows,
               const float* k, const float* v, size_t stride) {
  const PageLayout& layout = *kv.layout;
  for (size_t row = 0; row < num_rows; row++) {
    const size_t position = first_position + row;
    std::byte* page = kv.pages[position / kPageTokens];
    for (size_t head = 0; head < layout.num_kv_heads; head++) {
      const size_t from = row * stride + head * layout.head_dim;
      WriteHead(layout, position % kPageTokens, k + from, v + from,
                page + layout.k_offset(layer, head), page + layout.v_offset(layer, head),
                reinterpret_cast<float*>(page + layout.scale_offset(layer, head)));
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
