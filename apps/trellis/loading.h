// What every subcommand needs before it can start: sizes, threads, a loaded model.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "os/compute_pool.h"
#include "server/service.h"

namespace trellis {

// "2GiB", "512M", "1000000": bytes. ERRORS: kInvalidArgument.
Result<size_t> ParseBytes(const std::string& text);
std::string FormatBytes(size_t bytes);

struct ModelOptions {
  std::string path;              // of the file; what -m says until ResolveModel (models.h)
  std::string hf_repo;           // "user/repo[:quant]" instead; empty after ResolveModel
  std::string hub;               // where that is pulled from; see Pull (pull.h)
  size_t threads = 0;            // 0: physical cores
  size_t context_size = 0;       // 0: the model's
  std::string kv_cache;          // empty: derived from free memory
  std::string kv_type = "auto";  // or a KvTypeName()
  bool prefix_cache = true;
  EvictionPolicyKind eviction = EvictionPolicyKind::kLru;
  bool pack_cache = true;
  size_t max_queue = 512;
  int max_itl_ms = 200;  // 0: no target
  int pin_share = 25;    // percent of the KV cache
};

// Loads the model, showing a bar on a terminal; `progress` is told too if it is not empty.
// ERRORS: those of Model::Load.
Result<std::unique_ptr<Model>> LoadModel(const ModelOptions& options, const KernelTable& kernels,
                                         ComputePool& pool,
                                         std::function<void(size_t, size_t)> progress);

// The pages that a model of `spec` has when LoadModel loads it.
PageLayout LayoutOf(const ModelSpec& spec, const ModelOptions& options, const KernelTable& kernels);

// What a file's model is called where nobody says: as the file, without its folder and ".gguf".
std::string NameOfFile(const std::string& path);

// The default budget: half of what is free after loading, at most 16 sequences of the whole
// context, at least one page.
size_t DefaultCacheBytes(const PageLayout& layout, size_t context_size, size_t available_bytes);

// Everything: pool, model, tokenizer, template, cache, engine. Says on stderr what it took.
// ERRORS: those of the Create or Load of each; kInvalidArgument (TRELLIS_ISA, context_size,
// kv_cache).
Result<std::unique_ptr<Service>> LoadService(const ModelOptions& options,
                                             std::function<void(size_t, size_t)> progress);

}  // namespace trellis
