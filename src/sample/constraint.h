// Constraint: which tokens the next one of an answer may be, as the answer grows; for the sampler,
// whatever it is that constrains it (text/grammar.h).
#pragma once

#include <span>

#include "base/status.h"
#include "base/types.h"

namespace trellis {

// Of one answer; one thread at a time. ERRORS of all: what keeps it from knowing, which ends the
// answer.
class Constraint {
 public:
  virtual ~Constraint() = default;
  // Whether the answer may go on with this token, or end, if it is one that ends texts.
  virtual Result<bool> Allows(TokenId token) const = 0;
  // -inf for every token that it may not. `logits`: [vocab_size].
  virtual Status Ban(std::span<float> logits) const = 0;
  // It goes on with it. REQUIRES: Allows(token).
  virtual Status Accept(TokenId token) = 0;
};

}  // namespace trellis
