// ModelSource: where the models of a server come from, seen from the pool that loads them
// (server/model_pool.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "model/model_spec.h"
#include "server/service.h"

namespace trellis {

// What is known of a model without loading it.
struct ModelInfo {
  std::string name;         // what clients call it; no two have the same
  ModelSpec spec;           // what its file says
  size_t context_size = 0;  // that it is served with
  std::string fingerprint;  // Service::fingerprint; empty until it is loaded
  int64_t created = 0;      // seconds since 1970
  size_t memory_bytes = 0;  // that it takes when it is loaded: weights, keys and values
};

// What a client wants to know before it writes a chat for it.
struct ModelDetails {
  std::string chat_template;              // empty: it has none
  std::vector<std::string> capabilities;  // ChatTemplate::capabilities()
};

// THREADS: any, several at once.
class ModelSource {
 public:
  virtual ~ModelSource() = default;

  // All there are now, by name; those that could not be loaded are left out. ERRORS: kIo.
  virtual Result<std::vector<ModelInfo>> List() = 0;
  // The one that `name` means, which need not be written as List() does. ERRORS: kNotFound,
  // kInvalidArgument (it may be several), and what is wrong with the model.
  virtual Result<ModelInfo> Find(const std::string& name) = 0;
  virtual Result<ModelDetails> Describe(const ModelInfo& model) = 0;
  // Service::model_name is model.name. Tells `progress` how far it is.
  virtual Result<std::unique_ptr<Service>> Load(const ModelInfo& model, LoadProgress& progress) = 0;
};

}  // namespace trellis
