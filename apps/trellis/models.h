// The models that were pulled, as commands find them.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"
#include "loading.h"

namespace trellis {

// ERRORS: kInvalidArgument: neither -m nor -hf says which model, or -hf is no USER/REPO[:QUANT].
Status CheckModelIsNamed(const ModelOptions& options);

// Makes options->path that of a file: the one -m says, else that of the pulled model which it
// names, or of -hf's model, which is pulled unless it is there (then nobody is asked). A pull that
// `is_cancelled` says true to ends with kCancelled.
// ERRORS: those of CheckModelIsNamed, ModelStore::Find and Pull.
Status ResolveModel(ModelOptions* options, const std::function<bool()>& is_cancelled);

// The first half of that: a file, or the file of a pulled model. ERRORS: those of ModelStore::Find.
Result<std::string> FindModelFile(const std::string& name);

}  // namespace trellis
