// Llama 2 and 3, SmolLM2, Mistral and the many models that share their shape. GGUF stores their
// query and key rows permuted, so that rope pairs neighbours. llama.cpp's src/models/llama.cpp is
// the reference for all arch_*.cc.
#include <fmt/format.h>

#include "model/transformer_config.h"

namespace trellis {

Status FillLlama(const GgufFile& gguf, TransformerConfig* config) {
  const ModelSpec& spec = config->spec;
  if (spec.rope_dim != spec.head_dim) {
    return Status(StatusCode::kDataLoss, fmt::format("{}: rope.dimension_count is {}, expected {}",
                                                     gguf.path(), spec.rope_dim, spec.head_dim));
  }
  config->rope_pairing = RopePairing::kAdjacent;
  return Status::Ok();
}

}  // namespace trellis
