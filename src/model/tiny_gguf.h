// For tests: small GGUF models with random weights, of every architecture and tensor type, written
// by ggml's own writer and quantised by its own quantisers. What MakeTinyModel() returns is plain
// data: a test may take a key or a tensor away, or bend it, before it is written.
#pragma once

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/check.h"

namespace trellis {

struct TinyTensor {
  std::string name;
  std::vector<int64_t> shape;  // ggml's order: shape[0] is the length of a row
  ggml_type type = GGML_TYPE_F32;
  std::vector<float> values;
};

using TinyValue = std::variant<uint32_t, float, std::string>;

struct TinyGguf {
  std::map<std::string, TinyValue> keys;
  std::vector<TinyTensor> tensors;

  TinyTensor& Find(const std::string& name) {
    for (TinyTensor& tensor : tensors) {
      if (tensor.name == name) return tensor;
    }
    TRELLIS_CHECK(false);
  }
  void Remove(const std::string& name) {
    std::erase_if(tensors, [&](const TinyTensor& tensor) { return tensor.name == name; });
  }
};

struct TinyShape {
  std::string architecture = "llama";
  size_t num_layers = 2;
  size_t embedding_length = 64;
  size_t feed_forward_length = 96;
  size_t num_heads = 4, num_kv_heads = 2;
  size_t head_dim = 16;
  size_t vocab_size = 96;
  enum class Output { kOwn, kTied } output = Output::kOwn;
  ggml_type type = GGML_TYPE_F32;              // of matrices
  std::vector<float> rope_divisors = {};       // [head_dim / 2]: rope_freqs.weight
  std::map<std::string, TinyValue> keys = {};  // more of them, without the architecture's prefix
  uint32_t seed = 1;
};

namespace tiny_internal {

class Maker {
 public:
  explicit Maker(const TinyShape& shape) : s_(shape), random_(shape.seed) {}

  TinyGguf Make() {
    const bool has_head_norms = s_.architecture == "qwen3" || s_.architecture == "gemma3";
    const size_t width = s_.embedding_length, hidden = s_.feed_forward_length;
    const size_t q_width = s_.num_heads * s_.head_dim, kv_width = s_.num_kv_heads * s_.head_dim;
    SetKeys();
    // Logits spread by about 3, and a layer adds about half of what is there.
    Matrix("token_embd", width, s_.vocab_size, 3);
    if (s_.output == TinyShape::Output::kOwn) Matrix("output", width, s_.vocab_size, 3);
    Norm("output_norm", width);
    if (!s_.rope_divisors.empty()) {
      gguf_.tensors.push_back({"rope_freqs.weight",
                               {static_cast<int64_t>(s_.rope_divisors.size())},
                               GGML_TYPE_F32,
                               s_.rope_divisors});
    }
    for (size_t i = 0; i < s_.num_layers; i++) {
      const std::string layer = "blk." + std::to_string(i) + ".";
      Norm(layer + "attn_norm", width);
      Norm(layer + "ffn_norm", width);
      Matrix(layer + "attn_q", width, q_width, 1.5f);
      Matrix(layer + "attn_k", width, kv_width, 1.5f);
      Matrix(layer + "attn_v", width, kv_width, 1);
      Matrix(layer + "attn_output", q_width, width, 0.4f);
      Matrix(layer + "ffn_gate", width, hidden, 1);
      Matrix(layer + "ffn_up", width, hidden, 1);
      Matrix(layer + "ffn_down", hidden, width, 0.4f);
      if (s_.architecture == "qwen2") {
        Bias(layer + "attn_q", q_width);
        Bias(layer + "attn_k", kv_width);
        Bias(layer + "attn_v", kv_width);
      }
      if (has_head_norms) {
        Norm(layer + "attn_q_norm", s_.head_dim);
        Norm(layer + "attn_k_norm", s_.head_dim);
      }
      if (s_.architecture == "gemma3") {
        Norm(layer + "post_attention_norm", width);
        Norm(layer + "post_ffw_norm", width);
      }
    }
    return std::move(gguf_);
  }

 private:
  void SetKeys() {
    const auto set = [&](const std::string& key, const TinyValue& value) {
      gguf_.keys[s_.architecture + "." + key] = value;
    };
    const auto number = [](size_t value) { return static_cast<uint32_t>(value); };
    gguf_.keys["general.architecture"] = s_.architecture;
    gguf_.keys["tokenizer.ggml.model"] = "no_vocab";
    set("vocab_size", number(s_.vocab_size));
    set("block_count", number(s_.num_layers));
    set("context_length", uint32_t{4096});
    set("embedding_length", number(s_.embedding_length));
    set("feed_forward_length", number(s_.feed_forward_length));
    set("attention.head_count", number(s_.num_heads));
    set("attention.head_count_kv", number(s_.num_kv_heads));
    set("attention.key_length", number(s_.head_dim));
    set("attention.value_length", number(s_.head_dim));
    set("attention.layer_norm_rms_epsilon", 0.01f);  // large, so that it matters
    for (const auto& [key, value] : s_.keys) set(key, value);
  }
  void Matrix(const std::string& name, size_t depth, size_t num_rows, float gain) {
    std::normal_distribution<float> normal(0, gain / std::sqrt(static_cast<float>(depth)));
    Add(name + ".weight", {static_cast<int64_t>(depth), static_cast<int64_t>(num_rows)}, s_.type,
        [&] { return normal(random_); });
  }
  void Norm(const std::string& name, size_t size) {
    std::uniform_real_distribution<float> around_one(0.5f, 1.5f);
    Add(name + ".weight", {static_cast<int64_t>(size)}, GGML_TYPE_F32,
        [&] { return around_one(random_); });
  }
  void Bias(const std::string& name, size_t size) {
    std::normal_distribution<float> normal(0, 0.5f);
    Add(name + ".bias", {static_cast<int64_t>(size)}, GGML_TYPE_F32,
        [&] { return normal(random_); });
  }
  template <typename Draw>
  void Add(const std::string& name, std::vector<int64_t> shape, ggml_type type, Draw draw) {
    const auto size = static_cast<size_t>(
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
    TinyTensor tensor{name, std::move(shape), type, std::vector<float>(size)};
    std::generate(tensor.values.begin(), tensor.values.end(), draw);
    gguf_.tensors.push_back(std::move(tensor));
  }

  const TinyShape& s_;
  std::mt19937 random_;
  TinyGguf gguf_;
};

inline void SetKey(gguf_context* out, const std::string& key, const TinyValue& value) {
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, uint32_t>) {
          gguf_set_val_u32(out, key.c_str(), v);
        } else if constexpr (std::is_same_v<T, float>) {
          gguf_set_val_f32(out, key.c_str(), v);
        } else {
          gguf_set_val_str(out, key.c_str(), v.c_str());
        }
      },
      value);
}

// Tensors [begin, end) and the keys that are in `out` already.
inline void WriteFile(gguf_context* out, const TinyGguf& gguf, size_t begin, size_t end,
                      const std::string& path) {
  size_t bytes = 0;
  for (size_t i = begin; i < end; i++) {
    bytes +=
        gguf.tensors[i].values.size() * sizeof(float) + 4 * GGML_MEM_ALIGN + ggml_tensor_overhead();
  }
  ggml_context* memory =
      ggml_init({.mem_size = bytes + 1024, .mem_buffer = nullptr, .no_alloc = false});
  for (size_t i = begin; i < end; i++) {
    const TinyTensor& tensor = gguf.tensors[i];
    ggml_tensor* copy = ggml_new_tensor(memory, tensor.type, static_cast<int>(tensor.shape.size()),
                                        tensor.shape.data());
    ggml_set_name(copy, tensor.name.c_str());
    if (tensor.type == GGML_TYPE_F32) {
      std::memcpy(copy->data, tensor.values.data(), tensor.values.size() * sizeof(float));
    } else {
      ggml_quantize_chunk(tensor.type, tensor.values.data(), copy->data, 0, ggml_nrows(copy),
                          tensor.shape[0], nullptr);
    }
    gguf_add_tensor(out, copy);
  }
  TRELLIS_CHECK(gguf_write_to_file(out, path.c_str(), /*only_meta=*/false));
  ggml_free(memory);
}

}  // namespace tiny_internal

inline TinyGguf MakeTinyModel(const TinyShape& shape) {
  return tiny_internal::Maker(shape).Make();
}

inline void WriteGguf(const TinyGguf& gguf, const std::string& path) {
  gguf_context* out = gguf_init_empty();
  for (const auto& [key, value] : gguf.keys) tiny_internal::SetKey(out, key, value);
  tiny_internal::WriteFile(out, gguf, 0, gguf.tensors.size(), path);
  gguf_free(out);
}

// "PREFIX-00001-of-0000N.gguf" and the others, each with its share of the tensors.
inline std::vector<std::string> WriteGgufSplits(const TinyGguf& gguf, const std::string& prefix,
                                                size_t count) {
  std::vector<std::string> paths;
  const size_t n = gguf.tensors.size();
  for (size_t i = 0; i < count; i++) {
    gguf_context* out = gguf_init_empty();
    if (i == 0) {
      for (const auto& [key, value] : gguf.keys) tiny_internal::SetKey(out, key, value);
    }
    gguf_set_val_u16(out, "split.no", static_cast<uint16_t>(i));
    gguf_set_val_u16(out, "split.count", static_cast<uint16_t>(count));
    gguf_set_val_i32(out, "split.tensors.count", static_cast<int32_t>(n));
    paths.push_back(prefix + fmt::format("-{:05}-of-{:05}.gguf", i + 1, count));
    tiny_internal::WriteFile(out, gguf, n * i / count, n * (i + 1) / count, paths.back());
    gguf_free(out);
  }
  return paths;
}

}  // namespace trellis
