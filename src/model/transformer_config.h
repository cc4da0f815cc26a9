// TransformerConfig: everything the forward pass needs to know about an architecture, as plain
// data. An arch_*.cc fills it from a GGUF file; transformer.cc runs it. The blocks, in order, per
// layer:
//
//   x += post_norm?(wo(attention(rope(qk_norm?(wq(norm(x)))), ...)))
//   x += post_norm?(down(activation(gate(norm(x))) * up(norm(x))))
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/status.h"
#include "kernels/ops.h"
#include "model/gguf_file.h"
#include "model/model_spec.h"

namespace trellis {

// Rotary position embedding: angle of pair i at position p is p * frequency(i); see rope_table.h.
struct RopeConfig {
  float base = 10000;
  float linear_factor = 1;  // positions are divided by it
  bool yarn = false;  // YaRN (arXiv 2309.00071): waves between two lengths are interpolated in part
  size_t original_context = 0;
  float magnitude = 1;  // multiplies cos and sin
  // [rope_dim / 2], or empty (Llama 3's rope_freqs.weight)
  std::vector<float> frequency_divisors = {};
};

enum class Activation { kSilu, kGelu };

struct TransformerConfig {
  ModelSpec spec;
  RopePairing rope_pairing = RopePairing::kHalves;
  RopeConfig rope;
  Activation activation = Activation::kSilu;
  bool qk_norm = false;  // RMSNorm of each query and key head before rope
  // RMSNorm of attention's and the feed-forward's output before the residual is added.
  bool post_norms = false;
  float embedding_scale = 1;
  float attention_scale = 0;
  float final_softcap = 0;  // 0: none
  // Layers with a sliding window of spec.sliding_window positions, and their own rope.
  std::vector<bool> layer_is_local;  // [num_layers]
  RopeConfig local_rope;
};

// What `general.architecture` names. ERRORS: kUnsupported (lists what there is), kDataLoss (a key
// is missing or absurd).
Result<TransformerConfig> ReadTransformerConfig(const GgufFile& gguf);

// --- For arch_*.cc ---

// One supported architecture: `fill` completes what ReadCommonConfig() read.
struct Architecture {
  const char* name;
  Status (*fill)(const GgufFile& gguf, TransformerConfig* config);
};
Status FillLlama(const GgufFile& gguf, TransformerConfig* config);
Status FillQwen2(const GgufFile& gguf, TransformerConfig* config);
Status FillQwen3(const GgufFile& gguf, TransformerConfig* config);
Status FillGemma3(const GgufFile& gguf, TransformerConfig* config);

}  // namespace trellis
