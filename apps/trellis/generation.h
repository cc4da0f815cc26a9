// How one text is generated, and what it took: the same for a model in this process and for a
// server elsewhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "sample/sampler.h"
#include "server/service.h"

namespace trellis {

struct GenerationOptions {
  size_t max_tokens = 0;  // 0: to the end of the context
  SamplingParams sampling;
  int64_t seed = -1;  // -1: drawn
};

struct GenerationListener {
  std::function<void(std::string_view)> on_text;
  std::function<bool()> is_stopped;  // asked about every 50 ms, and for each piece of text
};

struct GenerationStats {
  size_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  // From the request to the first token; from there to the end.
  double first_token_seconds = 0, rest_seconds = 0;
  bool was_stopped = false;

  double prompt_rate() const;     // tokens that were not cached, per second
  double generated_rate() const;  // per second
};

// Goes on with `prompt` on the service's engine. What a listener throws ends it.
// ERRORS: those of Engine::Submit, and of the request.
Result<GenerationStats> Generate(const Service& service, std::vector<TokenId> prompt,
                                 const GenerationOptions& options,
                                 const GenerationListener& listener);

}  // namespace trellis
