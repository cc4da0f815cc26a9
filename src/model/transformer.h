// Transformer: the forward pass of every supported architecture. Rows of all sequences go through
// the layers together; only attention looks at which sequence a row belongs to.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "model/attention_plan.h"
#include "model/model.h"
#include "model/rope_table.h"
#include "model/step_profile.h"
#include "model/transformer_config.h"
#include "model/weights.h"
#include "os/compute_pool.h"

namespace trellis {

class Transformer : public Model {
 public:
  // Takes what LoadWeights() made from `gguf`; `kernels` and `pool` outlive it.
  static Result<std::unique_ptr<Transformer>> Create(std::unique_ptr<GgufFile> gguf,
                                                     TransformerConfig config, Weights weights,
                                                     const KernelTable& kernels, ComputePool& pool,
                                                     KvType kv_type);

  const ModelSpec& spec() const override { return config_.spec; }
  PageLayout page_layout() const override { return layout_; }
  void Forward(std::span<const SequenceRows> batch, float* logits) override;
  void Report(StepProfile* profile) override { profile_ = profile; }

 private:
  // A row of the chunk at hand.
  struct Row {
    TokenId token;
    size_t position;
    const SequenceRows* sequence;
    bool wants_logits;
  };
  // Activations of up to kMaxRows rows, f32 and quantised in both forms. [rows, width]
  struct Rows {
    float* f32 = nullptr;
    size_t width = 0;
    QuantizedRows per_group, per_block;
    Activations View() const { return {f32, width, per_group, per_block}; }
  };

  Transformer(std::unique_ptr<GgufFile> gguf, TransformerConfig config, Weights weights,
              const KernelTable& kernels, ComputePool& pool, KvType kv_type);
  Status AllocateScratch();

  // Every fork-join of a step goes through here: `name` and work() are for the profile.
  template <typename Work, typename Body>
  void ForEach(std::string_view name, const Work& work, size_t num_items, const Body& body,
               ComputePool::Order order = ComputePool::Order::kShares) {
    if (profile_ == nullptr) return pool_.ParallelFor(num_items, body, order);
    profile_->ParallelFor(pool_, name, work(), num_items, body, order);
  }
  static StepWork Uncounted() { return {}; }
  StepWork WorkOf(const Projection& projection) const;
  StepWork WorkOfAttention(const AttentionPlan& plan, size_t window) const;

  void ForwardChunk(float* logits);
  void Embed();
  void Layer(size_t index);
  void NormalizeForLayer(size_t index);
  void RotateAndWrite(size_t index);
  void KeepLogitRows();
  void SumHidden();
  void PlanAttention();
  void Attend(size_t index);
  void FeedForward(const LayerWeights& layer);
  void Head(float* logits);

  // Residual += (post-norm of) delta_, unless there is none yet, then normed_ = RMSNorm(residual) *
  // weight, quantised if `next` needs it.
  enum class Delta { kNone, kAdd };
  // x += delta, normed before where the model does.
  void AddDelta(float* x, float* delta, const float* post_norm);
  void AddAndNormalize(Delta add, const float* post_norm, const float* norm,
                       const Projection& next);
  // Where a row of `rows` is to be made for `next`: in its place if that reads it in f32, else in
  // the thread's scratch, as it is quantised at once.
  float* RowFor(const Rows& rows, size_t row, const Projection& next, size_t thread);
  // x as row `row` of `rows`, in the forms that `next` reads.
  void QuantizeRow(const float* x, const Rows& rows, size_t row, const Projection& next);
  // Many rows are multiplied in groups, one for a thread unless that leaves too few in each, so
  // that a thread goes on with rows that its own cache holds. Group i: rows [i * rows, ...), the
  // last fewer.
  struct RowGroups {
    size_t num, rows;
  };
  RowGroups GroupRows() const;
  void Project(const Projection& projection, const Rows& x, float* out, size_t out_stride);
  // activation(gate) * up, both of normed_, in the forms that `down` reads. The same numbers either
  // way: for few rows whole, so that every thread has a share; for many a block of columns and
  // MatmulKernels::block_rows rows at a time, which stay in the cache.
  void GateRows(const LayerWeights& layer);
  void GateBlocks(const LayerWeights& layer);
  void GateBlock(const LayerWeights& layer, size_t block, size_t row, size_t num_rows,
                 std::byte* scratch);

  const std::unique_ptr<GgufFile> gguf_;
  const TransformerConfig config_;
  const Weights weights_;
  const KernelTable& kernels_;
  ComputePool& pool_;
  const decltype(OpKernels::silu_mul) gate_;  // the model's activation
  StepProfile* profile_ = nullptr;
  const PageLayout layout_;
  RopeTable rope_, local_rope_;

  Buffer scratch_;
  float* residual_ = nullptr;  // [rows, embedding]
  float* delta_ = nullptr;     // [rows, embedding]: what attention or the feed-forward adds
  float* qkv_ = nullptr;       // [rows, qkv width]
  float* gate_up_ = nullptr;   // [kGatedRows, 2 * feed_forward]
  Rows normed_, attended_, hidden_;
  std::vector<std::byte*> thread_scratch_;    // [threads]
  std::vector<Row> rows_;                     // of the chunk
  std::vector<AttentionRow> attention_rows_;  // the same
  AttentionPlan plan_, local_plan_;           // of layers that see everything, or a window
  std::vector<float> attention_states_;       // of blocks that a plan cuts
};

}  // namespace trellis
