// Texts that are hard on tokenizers.
#pragma once

#include <string>
#include <vector>

namespace trellis {

// Written down: emoji, scripts, code, white space, control characters, special tokens and what
// looks like them, long words, and random cuts and mixtures of all that, the same on each run.
std::vector<std::string> TokenizerCorpus();

}  // namespace trellis
