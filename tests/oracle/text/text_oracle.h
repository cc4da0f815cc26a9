// Asks the reference (text_reference.cc) about one model's vocabulary.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"

namespace trellis {

// The answers, see text_reference.cc. A reference that fails is a failure of the test, and none.
std::vector<std::string> AskReference(const std::string& model,
                                      const std::vector<std::string>& questions);

// As the reference writes them.
std::string JoinTokens(const std::vector<TokenId>& tokens);

// A file that the tests are nothing without.
std::string ReadFileOrDie(const std::string& path);

}  // namespace trellis
