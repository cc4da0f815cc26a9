// ModelSpec: what a GGUF file says about its model, with llama.cpp's defaults where it says
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace trellis {

// Which hidden states are a text's embedding: the last token's, or the mean of all.
enum class Pooling { kLast, kMean };

struct ModelSpec {
  std::string architecture;  // general.architecture: llama, qwen2, qwen3, gemma3
  std::string name;          // general.name, or the file's name
  std::string file_type;     // "Q4_K - Medium": general.file_type in llama.cpp's words
  size_t num_layers = 0;
  size_t embedding_length = 0;
  size_t feed_forward_length = 0;
  size_t num_heads = 0;
  size_t num_kv_heads = 0;
  size_t head_dim = 0;
  size_t rope_dim = 0;
  size_t vocab_size = 0;
  size_t context_length = 0;  // what the model was trained for
  float rms_epsilon = 0;
  size_t sliding_window = 0;  // 0: none
  Pooling pooling = Pooling::kLast;
  size_t num_parameters = 0;
  size_t file_bytes = 0;       // all splits
  size_t packed_bytes = 0;     // in memory
  bool packed_before = false;  // they came out of the cache on disk
  std::string fingerprint;     // hex; GgufFile::Fingerprint(): clients see it change with the model
};

}  // namespace trellis
