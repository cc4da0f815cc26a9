// Model: a GGUF file as packed weights, and one forward pass over a batch of rows.
//
// THREADS: Load() and Forward() use the compute pool given to them; one Forward at a time.
// INVARIANT: a row's logits and KV depend on its sequence's tokens and positions alone, bit for
// bit, whatever else is in the batch and however the sequence was chunked.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/page_layout.h"
#include "base/status.h"
#include "base/types.h"
#include "model/model_spec.h"

namespace trellis {

class ComputePool;   // os/compute_pool.h
struct KernelTable;  // kernels/kernels.h
class StepProfile;   // model/step_profile.h

// Consecutive new rows of one sequence in a step.
struct SequenceRows {
  // Page table, [PagesFor(first_position + tokens.size())] or longer.
  std::span<std::byte* const> pages;
  std::span<const TokenId> tokens;  // [num_rows] the new rows
  size_t first_position = 0;
  // Rows below this position are resident already: they are computed for their logits, and not
  // written again.
  size_t first_unwritten = 0;
  // Which rows want logits, as indices into `tokens`, ascending (usually just the last one, or
  // none).
  std::span<const size_t> logit_rows;
  // [embedding_length], or empty. If not: instead of logits, the hidden states of these rows, as
  // the output head would get them, are added to it one after the other.
  std::span<float> hidden_sum = {};
};

struct LoadOptions {
  // What pages hold; nothing: what the kernels are fastest with.
  std::optional<KvType> kv_type = {};
  // Called with done and total bytes as packing goes; may be empty.
  std::function<void(size_t done, size_t total)> progress = {};
  // Folder for packed weights, which makes the next start faster; empty: none.
  std::string pack_cache = {};
  // Told, in a line, what is not worth failing for; may be empty.
  std::function<void(const std::string&)> warn = {};
};

class Model {
 public:
  // ERRORS: kNotFound, kDataLoss (truncated, bad header), kUnsupported (architecture, type), each
  // naming the file and the thing.
  static Result<std::unique_ptr<Model>> Load(const std::string& path, const KernelTable& kernels,
                                             ComputePool& pool, const LoadOptions& options);
  virtual ~Model() = default;

  virtual const ModelSpec& spec() const = 0;
  virtual PageLayout page_layout() const = 0;

  // Computes all rows of `batch`, writes their keys and values into their pages, and puts the
  // logits of the rows asked for into `logits` [sum of logit_rows, vocab_size] f32, in batch order.
  // REQUIRES: at least one row; positions below spec().context_length; token ids below vocab_size;
  // sequences' writable pages are distinct.
  virtual void Forward(std::span<const SequenceRows> batch, float* logits) = 0;

  // From now on Forward() tells `profile` its parts; null: no more. A model without any ignores it.
  virtual void Report(StepProfile* profile) { (void)profile; }
};

}  // namespace trellis
