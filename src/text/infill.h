// Infill: the prompt from which a code model writes what belongs between two texts.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "text/tokenizer.h"

namespace trellis {

struct InfillText {
  std::string prefix, suffix;
  std::string begun = {};  // of what is to be written
  struct File {
    std::string name, text;
  };
  std::vector<File> files = {};  // other files of the project, the most important last
};

// The tokens that llama-server's /infill makes of it, the pattern of
// https://arxiv.org/pdf/2409.12186 (figure 2), except that nothing is cut. No text becomes a
// special token. ERRORS: kUnsupported when the vocabulary has no tokens for it.
Result<std::vector<TokenId>> InfillPrompt(const Tokenizer& tokenizer, const InfillText& text);

}  // namespace trellis
