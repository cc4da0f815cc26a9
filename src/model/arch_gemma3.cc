// Gemma 3 (text): five layers with a sliding window, then one that sees everything; query and key
// norms; norms behind attention and feed-forward too; GeGLU; scaled embeddings; two rope bases.
#include <cmath>

#include "model/transformer_config.h"

namespace trellis {

Status FillGemma3(const GgufFile& gguf, TransformerConfig* config) {
  ModelSpec& spec = config->spec;
  config->rope_pairing = RopePairing::kHalves;
  config->qk_norm = true;
  config->post_norms = true;
  config->activation = Activation::kGelu;
  config->embedding_scale = std::sqrt(static_cast<float>(spec.embedding_length));
  config->final_softcap = gguf.Float("gemma3.final_logit_softcapping").value_or(0.0f);
  if (spec.num_layers == 62) {  // 27B scales by the model's width per head, not by head_dim
    config->attention_scale =
        1.0f / std::sqrt(static_cast<float>(spec.embedding_length / spec.num_heads));
  }
  spec.sliding_window = gguf.Integer("gemma3.attention.sliding_window").value_or(0);
  if (spec.sliding_window == 0) return Status::Ok();

  config->local_rope.base = gguf.Float("gemma3.rope.freq_base_swa").value_or(10000.0f);
  const char* pattern_key = "gemma3.attention.sliding_window_pattern";
  const size_t period = gguf.Integer(pattern_key).value_or(6);
  const auto pattern = gguf.Bools(pattern_key);
  for (size_t layer = 0; layer < spec.num_layers; layer++) {
    if (pattern) {
      config->layer_is_local[layer] = layer < pattern->size() && (*pattern)[layer];
    } else {
      config->layer_is_local[layer] = period == 0 || layer % period < period - 1;
    }
  }
  return Status::Ok();
}

}  // namespace trellis
