#include "model/transformer.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace trellis {
namespace {

// Rows that go through the layers together; bounds the scratch memory. Results do not depend on it.
constexpr size_t kMaxRows = 512;
// Rows that are worth a stream of the weights of their own.
constexpr size_t kLeastGroup = 128;
// As many rows at most have their gate and up multiplied whole.
constexpr size_t kGatedRows = 48;
// Rows of a block of gate and up at least.
constexpr size_t kLeastChunk = 16;

constexpr size_t kAlignment = 64;
size_t Aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Hands out aligned pieces of one buffer; with no buffer it only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <typename T>
  T* Take(size_t count) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += Aligned(count * sizeof(T));
    return reinterpret_cast<T*>(piece);
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

QuantizedRows TakeQuantized(Carver& carver, size_t depth, size_t scale_depth) {
  QuantizedRows q{.depth = depth, .scale_depth = scale_depth};
  q.values = carver.Take<int8_t>(kMaxRows * q.value_stride());
  q.scales = carver.Take<float>(kMaxRows * q.num_scales());
  q.group_sums = carver.Take<int16_t>(kMaxRows * q.group_stride());
  if (scale_depth == kGroupDepth) {
    q.scaled_sums = carver.Take<float>(kMaxRows * q.num_scales());
  } else {
    q.half_sums = carver.Take<int16_t>(kMaxRows * 2 * q.group_stride());
  }
  return q;
}

}  // namespace

Transformer::Transformer(std::unique_ptr<GgufFile> gguf, TransformerConfig config, Weights weights,
                         const KernelTable& kernels, ComputePool& pool, KvType kv_type)
    : gguf_(std::move(gguf)),
      config_(std::move(config)),
      weights_(std::move(weights)),
      kernels_(kernels),
      pool_(pool),
      gate_(config_.activation == Activation::kSilu ? kernels.ops.silu_mul : kernels.ops.gelu_mul),
      layout_{config_.spec.num_layers, config_.spec.num_kv_heads, config_.spec.head_dim, kv_type},
      rope_(config_.rope, config_.spec.rope_dim),
      local_rope_(config_.local_rope, config_.spec.rope_dim) {}

Result<std::unique_ptr<Transformer>> Transformer::Create(std::unique_ptr<GgufFile> gguf,
                                                         TransformerConfig config, Weights weights,
                                                         const KernelTable& kernels,
                                                         ComputePool& pool, KvType kv_type) {
  std::unique_ptr<Transformer> model(new Transformer(std::move(gguf), std::move(config),
                                                     std::move(weights), kernels, pool, kv_type));
  TRELLIS_RETURN_IF_ERROR(model->AllocateScratch());
  return model;
}

Status Transformer::AllocateScratch() {
  const ModelSpec& s = config_.spec;
  const size_t q_width = s.num_heads * s.head_dim, kv_width = s.num_kv_heads * s.head_dim;
  const auto carve = [&](Carver& carver) {
    const auto rows = [&](size_t width) {
      Rows r;
      r.width = width;
      r.f32 = carver.Take<float>(kMaxRows * width);
      r.per_group = TakeQuantized(carver, width, kGroupDepth);
      r.per_block = TakeQuantized(carver, width, kBlockDepth);
      return r;
    };
    residual_ = carver.Take<float>(kMaxRows * s.embedding_length);
    delta_ = carver.Take<float>(kMaxRows * s.embedding_length);
    qkv_ = carver.Take<float>(kMaxRows * (q_width + 2 * kv_width));
    gate_up_ = carver.Take<float>(kGatedRows * 2 * s.feed_forward_length);
    normed_ = rows(s.embedding_length);
    attended_ = rows(q_width);
    hidden_ = rows(s.feed_forward_length);
    thread_scratch_.clear();
    const size_t longest_row = std::max(s.embedding_length, s.feed_forward_length);
    const size_t products = 2 * kernels_.matmul.block_rows * kBlockDepth * sizeof(float);
    const size_t bytes = std::max({kMatmulScratchBytes + products,
                                   AttentionScratchBytes(s.head_dim), longest_row * sizeof(float)});
    for (size_t t = 0; t < pool_.num_threads(); t++)
      thread_scratch_.push_back(carver.Take<std::byte>(bytes));
  };
  Carver count(nullptr);
  carve(count);
  TRELLIS_ASSIGN_OR_RETURN(scratch_, Buffer::Allocate(count.used()));
  Carver place(scratch_.data());
  carve(place);
  return Status::Ok();
}

void Transformer::Forward(std::span<const SequenceRows> batch, float* logits) {
  rows_.clear();
  size_t max_position = 0;
  for (const SequenceRows& sequence : batch) {
    max_position = std::max(max_position, sequence.first_position + sequence.tokens.size());
  }
  rope_.Extend(max_position);
  if (config_.spec.sliding_window > 0) local_rope_.Extend(max_position);

  const auto flush = [&] {
    const auto gets_logits = [](const Row& row) {
      return row.wants_logits && row.sequence->hidden_sum.empty();
    };
    const auto num_logits =
        static_cast<size_t>(std::count_if(rows_.begin(), rows_.end(), gets_logits));
    ForwardChunk(logits);
    logits += num_logits * config_.spec.vocab_size;
    rows_.clear();
  };
  for (const SequenceRows& sequence : batch) {
    TRELLIS_DCHECK(sequence.pages.size() >=
                   PagesFor(sequence.first_position + sequence.tokens.size()));
    size_t next_logit_row = 0;
    for (size_t i = 0; i < sequence.tokens.size(); i++) {
      const bool wants =
          next_logit_row < sequence.logit_rows.size() && sequence.logit_rows[next_logit_row] == i;
      if (wants) next_logit_row++;
      rows_.push_back({sequence.tokens[i], sequence.first_position + i, &sequence, wants});
      if (rows_.size() == kMaxRows) flush();
    }
  }
  if (!rows_.empty()) flush();
}

void Transformer::ForwardChunk(float* logits) {
  Embed();
  PlanAttention();
  for (size_t index = 0; index < config_.spec.num_layers; index++) {
    Layer(index);
    if (rows_.empty()) return;  // the last layer was needed for its keys and values alone
  }
  SumHidden();
  if (!rows_.empty()) Head(logits);
}

void Transformer::Layer(size_t index) {
  const LayerWeights& layer = weights_.layers[index];
  const size_t qkv_width = layer.qkv.num_outputs;
  NormalizeForLayer(index);
  Project(layer.qkv, normed_, qkv_, qkv_width);
  RotateAndWrite(index);
  if (index + 1 == config_.spec.num_layers) {
    KeepLogitRows();
    if (rows_.empty()) return;
    PlanAttention();
  }
  Attend(index);
  Project(layer.attention_output, attended_, delta_, config_.spec.embedding_length);
  FeedForward(layer);
}

void Transformer::Embed() {
  const GgufTensor& table = *weights_.embedding;
  const size_t width = config_.spec.embedding_length;
  const auto to_float = ggml_get_type_traits(static_cast<ggml_type>(table.type))->to_float;
  ForEach("embed", Uncounted, rows_.size(), [&](size_t r, size_t) {
    const std::byte* row = table.data + static_cast<size_t>(rows_[r].token) * table.row_bytes;
    float* out = residual_ + r * width;
    if (table.type == GGML_TYPE_F32) {
      std::memcpy(out, row, width * sizeof(float));
    } else {
      to_float(row, out, static_cast<int64_t>(width));
    }
    if (config_.embedding_scale != 1) kernels_.ops.scale(out, config_.embedding_scale, width);
  });
}

void Transformer::NormalizeForLayer(size_t index) {
  const float* post_norm = index == 0 ? nullptr : weights_.layers[index - 1].post_feed_forward_norm;
  AddAndNormalize(index == 0 ? Delta::kNone : Delta::kAdd, post_norm,
                  weights_.layers[index].attention_norm, weights_.layers[index].qkv);
}

void Transformer::AddAndNormalize(Delta add, const float* post_norm, const float* norm,
                                  const Projection& next) {
  const size_t width = config_.spec.embedding_length;
  const float epsilon = config_.spec.rms_epsilon;
  ForEach("add + norm + quantise", Uncounted, rows_.size(), [&](size_t r, size_t thread) {
    float* x = residual_ + r * width;
    float* delta = delta_ + r * width;
    if (add == Delta::kAdd) AddDelta(x, delta, post_norm);
    float* normed = RowFor(normed_, r, next, thread);
    kernels_.ops.rms_norm(x, width, norm, epsilon, width, 1, normed, width);
    QuantizeRow(normed, normed_, r, next);
  });
}

void Transformer::AddDelta(float* x, float* delta, const float* post_norm) {
  const size_t width = config_.spec.embedding_length;
  const float epsilon = config_.spec.rms_epsilon;
  if (post_norm != nullptr)
    kernels_.ops.rms_norm(delta, width, post_norm, epsilon, width, 1, delta, width);
  kernels_.ops.add(x, delta, width);
}

float* Transformer::RowFor(const Rows& rows, size_t row, const Projection& next, size_t thread) {
  if (next.Reads(ActivationForm::kF32)) return rows.f32 + row * rows.width;
  return reinterpret_cast<float*>(thread_scratch_[thread]);
}

void Transformer::QuantizeRow(const float* x, const Rows& rows, size_t row,
                              const Projection& next) {
  if (next.Reads(ActivationForm::kPerGroup))
    kernels_.matmul.quantize_rows(x, rows.width, 1, rows.per_group.From(row));
  if (next.Reads(ActivationForm::kPerBlock))
    kernels_.matmul.quantize_rows(x, rows.width, 1, rows.per_block.From(row));
}

void Transformer::Project(const Projection& projection, const Rows& x, float* out,
                          size_t out_stride) {
  // Panels of all parts, in stretches that give every thread several items to balance, yet keep
  // each a stream; for each group of rows.
  const RowGroups groups = GroupRows();
  const size_t num_threads = pool_.num_threads();
  size_t num_panels = 0;
  for (const Projection::Part& part : projection.parts) num_panels += part.matrix.num_panels();
  const size_t stretch = std::clamp<size_t>(num_panels / (num_threads * 8), 1, 16);
  size_t num_items = 0;
  for (const Projection::Part& part : projection.parts)
    num_items += (part.matrix.num_panels() + stretch - 1) / stretch;
  ForEach(
      projection.name, [&] { return WorkOf(projection); }, groups.num * num_items,
      [&](size_t item, size_t thread) {
        const size_t row = item / num_items * groups.rows;
        item %= num_items;
        for (const Projection::Part& part : projection.parts) {
          const size_t panels = part.matrix.num_panels(), items = (panels + stretch - 1) / stretch;
          if (item >= items) {
            item -= items;
            continue;
          }
          const size_t begin = item * stretch;
          kernels_.matmul.matmul(part.matrix, x.View(), row,
                                 std::min(row + groups.rows, rows_.size()), begin,
                                 std::min(begin + stretch, panels), part.bias, out + part.column,
                                 out_stride, thread_scratch_[thread]);
          return;
        }
      });
}

Transformer::RowGroups Transformer::GroupRows() const {
  const size_t num = std::clamp<size_t>(rows_.size() / kLeastGroup, 1, pool_.num_threads());
  const size_t rows = (rows_.size() + num - 1) / num;
  return {.num = (rows_.size() + rows - 1) / rows, .rows = rows};
}

StepWork Transformer::WorkOf(const Projection& projection) const {
  StepWork work;
  for (const Projection::Part& part : projection.parts) {
    const PackedMatrix& m = part.matrix;
    work.macs += static_cast<double>(rows_.size() * m.num_outputs * m.depth);
    work.bytes += static_cast<double>(m.num_panels() * m.panel_bytes());
    if (FormFor(m.type) != ActivationForm::kF32) work.arithmetic = Arithmetic::kInt8;
  }
  return work;
}

void Transformer::RotateAndWrite(size_t index) {
  const ModelSpec& s = config_.spec;
  const LayerWeights& layer = weights_.layers[index];
  const RopeTable& rope = config_.layer_is_local[index] ? local_rope_ : rope_;
  const size_t q_width = s.num_heads * s.head_dim, kv_width = s.num_kv_heads * s.head_dim;
  const size_t stride = q_width + 2 * kv_width;
  ForEach("rope + write", Uncounted, rows_.size(), [&](size_t r, size_t) {
    const Row& row = rows_[r];
    float* q = qkv_ + r * stride;
    float* k = q + q_width;
    if (config_.qk_norm) {
      const auto norm = [&](float* heads, size_t n, const float* weight) {
        kernels_.ops.rms_norm(heads, s.head_dim, weight, s.rms_epsilon, s.head_dim, n, heads,
                              s.head_dim);
      };
      norm(q, s.num_heads, layer.q_norm);
      norm(k, s.num_kv_heads, layer.k_norm);
    }
    // Query and key heads are neighbours: one call turns both.
    kernels_.ops.rope(q, stride, 1, s.num_heads + s.num_kv_heads, s.head_dim, s.rope_dim,
                      config_.rope_pairing, rope.cos(row.position), rope.sin(row.position));
    if (row.position >= row.sequence->first_unwritten) {
      const PagedKv kv{&layout_, row.sequence->pages.data()};
      kernels_.attention.write_rows(kv, index, row.position, 1, k, k + kv_width, stride);
    }
  });
}

// After the last layer's keys and values are written, only rows that want logits go on.
void Transformer::KeepLogitRows() {
  const ModelSpec& s = config_.spec;
  const size_t qkv_width = (s.num_heads + 2 * s.num_kv_heads) * s.head_dim;
  size_t kept = 0;
  for (size_t r = 0; r < rows_.size(); r++) {
    if (!rows_[r].wants_logits) continue;
    if (kept != r) {
      rows_[kept] = rows_[r];
      std::memcpy(residual_ + kept * s.embedding_length, residual_ + r * s.embedding_length,
                  s.embedding_length * sizeof(float));
      std::memcpy(qkv_ + kept * qkv_width, qkv_ + r * qkv_width, qkv_width * sizeof(float));
    }
    kept++;
  }
  rows_.resize(kept);
}

// The rows as attention sees them, and who does what of them in layers of either kind.
void Transformer::PlanAttention() {
  const ModelSpec& s = config_.spec;
  const size_t q_width = s.num_heads * s.head_dim;
  const size_t qkv_width = q_width + 2 * s.num_kv_heads * s.head_dim;
  attention_rows_.clear();
  for (size_t r = 0; r < rows_.size(); r++) {
    attention_rows_.push_back({.pages = rows_[r].sequence->pages.data(),
                               .position = rows_[r].position,
                               .q = qkv_ + r * qkv_width,
                               .out = attended_.f32 + r * q_width});
  }
  AttentionPlanOptions options{.num_kv_heads = s.num_kv_heads,
                               .group = s.num_heads / s.num_kv_heads,
                               .window = 0,
                               .num_threads = pool_.num_threads()};
  plan_.Make(attention_rows_, options);
  if (s.sliding_window == 0) return;
  options.window = s.sliding_window;
  local_plan_.Make(attention_rows_, options);
}

// Scores and weighted values; each page once for all the rows that share it.
StepWork Transformer::WorkOfAttention(const AttentionPlan& plan, size_t window) const {
  const ModelSpec& s = config_.spec;
  size_t pairs = 0, pages = 0;
  const AttentionRow* before = nullptr;
  for (const AttentionRow& row : plan.rows()) {
    const size_t first = window > 0 && row.position >= window ? row.position - window + 1 : 0;
    pairs += row.position + 1 - first;
    for (size_t p = first / kPageTokens; p <= row.position / kPageTokens; p++) {
      const bool is_shared = before != nullptr && p <= before->position / kPageTokens &&
                             before->pages[p] == row.pages[p];
      if (!is_shared) pages++;
    }
    before = &row;
  }
  return {.macs = static_cast<double>(2 * pairs * s.num_heads * s.head_dim),
          .arithmetic = layout_.has_scales() ? Arithmetic::kInt16 : Arithmetic::kF32,
          .bytes = static_cast<double>(pages * layout_.page_bytes() / s.num_layers)};
}

void Transformer::Attend(size_t index) {
  const ModelSpec& s = config_.spec;
  const bool is_local = config_.layer_is_local[index];
  const AttentionPlan& plan = is_local ? local_plan_ : plan_;
  const AttentionTask task{.layout = &layout_,
                           .layer = index,
                           .window = is_local ? s.sliding_window : 0,
                           .num_heads = s.num_heads,
                           .scale = config_.attention_scale,
                           .softcap = 0,
                           .rows = plan.rows().data()};
  const size_t state_floats = s.num_heads / s.num_kv_heads * (2 + s.head_dim);
  if (attention_states_.size() < plan.num_states() * state_floats)
    attention_states_.resize(plan.num_states() * state_floats);

  const auto work = [&] { return WorkOfAttention(plan, task.window); };
  ForEach(
      "attention", work, plan.items().size(),
      [&](size_t i, size_t thread) {
        const AttentionItem& item = plan.items()[i];
        const AttentionBlock& block = plan.blocks()[item.block];
        if (block.is_cut) {
          float* states = attention_states_.data() +
                          block.StateOf(item.kv_head, item.segment, block.begin) * state_floats;
          kernels_.attention.attend_segment(task, item.kv_head, block.begin, block.end,
                                            item.segment, states, thread_scratch_[thread]);
        } else {
          kernels_.attention.attend(task, item.kv_head, block.begin, block.end,
                                    thread_scratch_[thread]);
        }
      },
      ComputePool::Order::kOneByOne);
  ForEach("merge + quantise attention", Uncounted, plan.rows().size(), [&](size_t r, size_t) {
    const AttentionBlock& block = plan.block_of(r);
    const size_t first = VisibleSegments(task.rows[r].position, task.window).first;
    for (size_t head = 0; block.is_cut && head < s.num_kv_heads; head++) {
      const float* states = attention_states_.data() + block.StateOf(head, first, r) * state_floats;
      kernels_.attention.merge_segments(task, head, r, states, block.num_rows() * state_floats);
    }
    const size_t row = plan.source(r);
    QuantizeRow(attended_.f32 + row * attended_.width, attended_, row,
                weights_.layers[index].attention_output);
  });
}

void Transformer::FeedForward(const LayerWeights& layer) {
  AddAndNormalize(Delta::kAdd, layer.post_attention_norm, layer.feed_forward_norm, layer.gate_up);
  if (rows_.size() <= kGatedRows) {
    GateRows(layer);
  } else {
    GateBlocks(layer);
  }
  Project(layer.down, hidden_, delta_, config_.spec.embedding_length);
}

void Transformer::GateRows(const LayerWeights& layer) {
  const size_t hidden = hidden_.width;
  Project(layer.gate_up, normed_, gate_up_, 2 * hidden);
  ForEach("activation + quantise", Uncounted, rows_.size(), [&](size_t r, size_t thread) {
    const float* row = gate_up_ + r * 2 * hidden;
    float* product = RowFor(hidden_, r, layer.down, thread);
    gate_(row, row + hidden, 2 * hidden, hidden, 1, product, hidden);
    QuantizeRow(product, hidden_, r, layer.down);
  });
}

void Transformer::GateBlocks(const LayerWeights& layer) {
  const RowGroups groups = GroupRows();
  // Fewer rows at a time where threads would have nothing to do.
  size_t chunk = kernels_.matmul.block_rows, chunks, num_items;
  for (;; chunk /= 2) {
    chunks = (groups.rows + chunk - 1) / chunk;
    num_items = BlocksFor(hidden_.width) * chunks;
    if (groups.num * num_items >= 4 * pool_.num_threads() || chunk < 2 * kLeastChunk) break;
  }
  ForEach(
      layer.gate_up.name, [&] { return WorkOf(layer.gate_up); }, groups.num * num_items,
      [&](size_t item, size_t thread) {
        const size_t first = item / num_items * groups.rows, skip = item % chunks * chunk;
        const size_t end = std::min(first + groups.rows, rows_.size());
        if (first + skip >= end) return;
        GateBlock(layer, item % num_items / chunks, first + skip,
                  std::min(chunk, end - first - skip), thread_scratch_[thread]);
      });
}

void Transformer::GateBlock(const LayerWeights& layer, size_t block, size_t row, size_t num_rows,
                            std::byte* scratch) {
  const size_t column = block * kBlockDepth;
  const size_t width = std::min(kBlockDepth, hidden_.width - column);
  const size_t panel = column / kPanelOutputs, num_panels = PanelsFor(width);
  float* products = reinterpret_cast<float*>(scratch + kMatmulScratchBytes);
  float* to = products;
  for (const Projection::Part& part : layer.gate_up.parts) {
    const float* bias = part.bias == nullptr ? nullptr : part.bias + column;
    kernels_.matmul.matmul(part.matrix.Panels(panel, num_panels), normed_.View().From(row), 0,
                           num_rows, 0, num_panels, bias, to, kBlockDepth, scratch);
    to += num_rows * kBlockDepth;
  }
  const float* up = products + num_rows * kBlockDepth;
  if (layer.down.Reads(ActivationForm::kF32)) {
    gate_(products, up, kBlockDepth, width, num_rows, hidden_.f32 + row * hidden_.width + column,
          hidden_.width);
  }
  if (!layer.down.Reads(ActivationForm::kPerGroup) && !layer.down.Reads(ActivationForm::kPerBlock))
    return;
  gate_(products, up, kBlockDepth, width, num_rows, products, kBlockDepth);
  const auto quantize = [&](const QuantizedRows& rows) {
    for (size_t r = 0; r < num_rows; r++)
      kernels_.matmul.quantize_rows(products + r * kBlockDepth, kBlockDepth, 1,
                                    rows.From(row + r).Block(block));
  };
  if (layer.down.Reads(ActivationForm::kPerGroup)) quantize(hidden_.per_group);
  if (layer.down.Reads(ActivationForm::kPerBlock)) quantize(hidden_.per_block);
}

// Rows whose hidden states are wanted end here; the others go on to the head.
void Transformer::SumHidden() {
  const size_t width = config_.spec.embedding_length;
  size_t kept = 0;
  for (size_t r = 0; r < rows_.size(); r++) {
    float* x = residual_ + r * width;
    float* delta = delta_ + r * width;
    const std::span<float> sum = rows_[r].sequence->hidden_sum;
    if (sum.empty()) {
      if (kept != r) {
        rows_[kept] = rows_[r];
        std::memcpy(residual_ + kept * width, x, width * sizeof(float));
        std::memcpy(delta_ + kept * width, delta, width * sizeof(float));
      }
      kept++;
      continue;
    }
    AddDelta(x, delta, weights_.layers.back().post_feed_forward_norm);
    kernels_.ops.rms_norm(x, width, weights_.output_norm, config_.spec.rms_epsilon, width, 1, delta,
                          width);
    kernels_.ops.add(sum.data(), delta, width);
  }
  rows_.resize(kept);
}

void Transformer::Head(float* logits) {
  const size_t vocab = config_.spec.vocab_size;
  AddAndNormalize(Delta::kAdd, weights_.layers.back().post_feed_forward_norm, weights_.output_norm,
                  weights_.output);
  Project(weights_.output, normed_, logits, vocab);
  if (config_.final_softcap > 0) {
    const float cap = config_.final_softcap;
    ForEach("softcap", Uncounted, rows_.size(), [&](size_t r, size_t) {
      for (size_t i = 0; i < vocab; i++)
        logits[r * vocab + i] = cap * std::tanh(logits[r * vocab + i] / cap);
    });
  }
}

}  // namespace trellis
