// Service: what the server answers from: one loaded model with its tokenizer, template and engine.
#pragma once

#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "model/model.h"
#include "os/compute_pool.h"
#include "server/metrics.h"
#include "server/request_log.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace trellis {

// Destroyed in reverse order: the engine first, then the model and the pool that it runs on.
struct Service {
  std::string model_name;   // what clients call it
  std::string fingerprint;  // system_fingerprint
  int64_t created = 0;      // seconds since 1970
  std::unique_ptr<ComputePool> pool;
  std::unique_ptr<Model> model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;
  std::vector<TokenId> end_tokens;
  RequestMetrics metrics;
  RequestLog requests;
  std::unique_ptr<Engine> engine;

  // Bans what the vocabulary suppresses, whatever the client's biases say, as llama-server does.
  void BanSuppressed(SamplingParams* sampling) const {
    for (const TokenId token : tokenizer->suppressed()) {
      sampling->logit_bias.emplace_back(token, -std::numeric_limits<float>::infinity());
    }
  }
};

// How far loading is; written by the loading thread, read by others.
struct LoadProgress {
  std::atomic<size_t> done{0}, total{0};
};

}  // namespace trellis
