// Qwen2 and Qwen2.5: biases on queries, keys and values (found by their tensors).
#include "model/transformer_config.h"

namespace trellis {

Status FillQwen2(const GgufFile&, TransformerConfig* config) {
  config->rope_pairing = RopePairing::kHalves;
  return Status::Ok();
}

}  // namespace trellis
