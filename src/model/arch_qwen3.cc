// Qwen3: RMSNorm of each query and key head; head_dim is its own number.
#include "model/transformer_config.h"

namespace trellis {

Status FillQwen3(const GgufFile&, TransformerConfig* config) {
  config->rope_pairing = RopePairing::kHalves;
  config->qk_norm = true;
  return Status::Ok();
}

}  // namespace trellis
