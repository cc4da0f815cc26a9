// Weights: the tensors of a model, packed for the kernels.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/matmul.h"
#include "model/gguf_file.h"
#include "model/model.h"
#include "model/pack_cache.h"
#include "model/transformer_config.h"
#include "os/buffer.h"
#include "os/compute_pool.h"

namespace trellis {

// One or more matrices that read the same rows and write neighbouring columns (q | k | v, gate |
// up): one fork-join, whatever their types.
struct Projection {
  struct Part {
    PackedMatrix matrix;
    size_t column = 0;            // where its outputs begin
    const float* bias = nullptr;  // [num_outputs] or null
  };
  std::vector<Part> parts;
  size_t num_outputs = 0;
  std::string name;  // for people: what, depth x outputs, types

  bool Reads(ActivationForm form) const;  // some part does
};

struct LayerWeights {
  const float* attention_norm = nullptr;       // [embedding]
  const float* q_norm = nullptr;               // [head_dim] or null
  const float* k_norm = nullptr;               // [head_dim] or null
  const float* post_attention_norm = nullptr;  // [embedding] or null
  const float* feed_forward_norm = nullptr;    // [embedding]
  const float* post_feed_forward_norm = nullptr;
  Projection qkv, attention_output, gate_up, down;
};

struct Weights {
  const GgufTensor* embedding = nullptr;  // rows are read from the file as tokens ask for them
  std::vector<LayerWeights> layers;
  const float* output_norm = nullptr;
  Projection output;  // [vocab]; packed from the embedding when tied

  // All packed panels are in one of the two.
  Buffer packed;
  std::optional<PackCache::Image> mapped;
  size_t packed_bytes = 0;

  std::vector<std::vector<float>> vectors;  // norms and biases
};

// Packs everything on `pool`, or finds it packed in options.pack_cache. ERRORS: kDataLoss naming
// the tensor that is missing or has the wrong shape, kUnsupported naming one that the architecture
// does not have, kResourceExhausted.
Result<Weights> LoadWeights(const GgufFile& gguf, const TransformerConfig& config,
                            ComputePool& pool, const LoadOptions& options);

}  // namespace trellis
