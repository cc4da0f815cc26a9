#include "model/model.h"

#include "kernels/kernels.h"
#include "model/gguf_file.h"
#include "model/transformer.h"
#include "model/transformer_config.h"
#include "model/weights.h"

namespace trellis {

Result<std::unique_ptr<Model>> Model::Load(const std::string& path, const KernelTable& kernels,
                                           ComputePool& pool, const LoadOptions& options) {
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  TRELLIS_ASSIGN_OR_RETURN(TransformerConfig config, ReadTransformerConfig(*gguf));
  config.spec.fingerprint = gguf->Fingerprint();
  TRELLIS_ASSIGN_OR_RETURN(Weights weights, LoadWeights(*gguf, config, pool, options));
  config.spec.packed_bytes = weights.packed_bytes;
  config.spec.packed_before = weights.mapped.has_value();
  const KvType kv_type = options.kv_type.value_or(kernels.attention.fastest_type);
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> model,
                           Transformer::Create(std::move(gguf), std::move(config),
                                               std::move(weights), kernels, pool, kv_type));
  return std::unique_ptr<Model>(std::move(model));
}

}  // namespace trellis
