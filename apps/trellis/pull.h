// Fetching models from a hub or a URL into the folder of models.
#pragma once

#include <functional>
#include <string>

#include "base/status.h"

namespace trellis {

// Fetches the model that `what` means, "user/repo[:quantisation]" of a hub or the URL of a GGUF
// file, unless it is there; what it does is said on stderr, with a bar on a terminal. `hub`: its
// URL; empty: $HF_ENDPOINT, else kDefaultHub (hub/hub.h). Returns the path of what to load.
// ERRORS: kInvalidArgument: `what` is neither; those of Hub::ListFiles, ChooseModel, Download.
Result<std::string> Pull(const std::string& what, const std::string& hub,
                         const std::function<bool()>& is_cancelled);

}  // namespace trellis
