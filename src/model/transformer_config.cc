#include "model/transformer_config.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "base/printable.h"
#include "kernels/attention.h"

namespace trellis {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", FillLlama}, {"qwen2", FillQwen2}, {"qwen3", FillQwen3}, {"gemma3", FillGemma3}};

// llama.cpp's names of general.file_type (enum llama_ftype).
const char* FileTypeName(uint64_t type) {
  static constexpr struct {
    uint64_t type;
    const char* name;
  } kNames[] = {{0, "F32"},
                {1, "F16"},
                {2, "Q4_0"},
                {3, "Q4_1"},
                {7, "Q8_0"},
                {8, "Q5_0"},
                {9, "Q5_1"},
                {10, "Q2_K - Medium"},
                {11, "Q3_K - Small"},
                {12, "Q3_K - Medium"},
                {13, "Q3_K - Large"},
                {14, "Q4_K - Small"},
                {15, "Q4_K - Medium"},
                {16, "Q5_K - Small"},
                {17, "Q5_K - Medium"},
                {18, "Q6_K"},
                {25, "IQ4_NL"},
                {30, "IQ4_XS"},
                {32, "BF16"},
                {38, "MXFP4 MoE"}};
  for (const auto& entry : kNames) {
    if (entry.type == type) return entry.name;
  }
  return "unknown";
}

class KeyReader {
 public:
  KeyReader(const GgufFile& gguf, std::string prefix)
      : gguf_(gguf), prefix_(std::move(prefix) + ".") {}

  Result<size_t> Required(const std::string& key, size_t max) const {
    const auto value = gguf_.Integer(prefix_ + key);
    if (!value) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: metadata key {}{} is missing", gguf_.path(), prefix_, key));
    }
    if (*value == 0 || *value > max) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: metadata key {}{} is {}, which cannot be", gguf_.path(),
                                prefix_, key, *value));
    }
    return static_cast<size_t>(*value);
  }
  size_t Or(const std::string& key, size_t value) const {
    return gguf_.Integer(prefix_ + key).value_or(value);
  }
  float FloatOr(const std::string& key, float value) const {
    return gguf_.Float(prefix_ + key).value_or(value);
  }
  std::string StringOr(const std::string& key, const char* value) const {
    return gguf_.String(prefix_ + key).value_or(value);
  }

 private:
  const GgufFile& gguf_;
  std::string prefix_;
};

Status Damaged(const GgufFile& gguf, const std::string& what) {
  return Status(StatusCode::kDataLoss, fmt::format("{}: {}", gguf.path(), what));
}

// Rope scaling as llama.cpp reads it for these architectures (llama-model.cpp, llama-context.cpp):
// linear unless said, YaRN's magnitude 1 + ln(factor) / 10; keys about YaRN's betas are for others.
Status ReadRope(const GgufFile& gguf, const KeyReader& keys, const ModelSpec& spec,
                RopeConfig* rope) {
  rope->base = keys.FloatOr("rope.freq_base", 10000.0f);
  float factor = keys.FloatOr("rope.scaling.factor", 0.0f);
  if (factor == 0) factor = keys.FloatOr("rope.scale_linear", 0.0f);
  const std::string type = keys.StringOr("rope.scaling.type", "linear");
  if (type != "none" && type != "linear" && type != "yarn") {
    return Status(StatusCode::kUnsupported,
                  fmt::format("{}: rope scaling type '{}' is not supported (none, linear, yarn)",
                              gguf.path(), type));
  }
  rope->linear_factor = factor == 0 || type == "none" ? 1.0f : factor;
  if (!(rope->linear_factor > 0) || !(rope->base > 0))
    return Damaged(gguf, "rope frequency base or factor is not positive");
  rope->magnitude = keys.FloatOr("rope.scaling.attn_factor", 1.0f);
  rope->yarn = type == "yarn";
  if (rope->yarn) {
    rope->original_context = keys.Or("rope.scaling.original_context_length", 0);
    if (rope->original_context == 0) rope->original_context = spec.context_length;
    if (rope->linear_factor > 1) rope->magnitude *= 1.0f + 0.1f * std::log(rope->linear_factor);
  }
  if (const GgufTensor* divisors = gguf.Find("rope_freqs.weight")) {
    if (divisors->type != 0 || divisors->depth != spec.rope_dim / 2 || divisors->num_rows != 1) {
      return Damaged(gguf,
                     fmt::format("tensor rope_freqs.weight is not [{}] F32", spec.rope_dim / 2));
    }
    rope->frequency_divisors.resize(divisors->depth);
    std::memcpy(rope->frequency_divisors.data(), divisors->data, divisors->bytes());
  }
  return Status::Ok();
}

Status ReadHeads(const GgufFile& gguf, const KeyReader& keys, ModelSpec* spec) {
  if (keys.Or("expert_count", 0) > 0) {
    return Status(StatusCode::kUnsupported,
                  fmt::format("{}: mixture-of-experts models are not supported", gguf.path()));
  }
  if (gguf.ArrayLength(spec->architecture + ".attention.head_count") ||
      gguf.ArrayLength(spec->architecture + ".attention.head_count_kv") ||
      gguf.ArrayLength(spec->architecture + ".feed_forward_length")) {
    return Status(StatusCode::kUnsupported,
                  fmt::format("{}: layers of different shapes are not supported", gguf.path()));
  }
  TRELLIS_ASSIGN_OR_RETURN(spec->num_heads, keys.Required("attention.head_count", 1 << 12));
  spec->num_kv_heads = keys.Or("attention.head_count_kv", spec->num_heads);
  if (spec->num_kv_heads == 0 || spec->num_heads % spec->num_kv_heads != 0 ||
      spec->num_heads / spec->num_kv_heads > 64) {
    return Damaged(
        gguf, fmt::format("{} query heads over {} kv heads", spec->num_heads, spec->num_kv_heads));
  }
  spec->head_dim = keys.Or("attention.key_length", spec->embedding_length / spec->num_heads);
  if (keys.Or("attention.value_length", spec->head_dim) != spec->head_dim) {
    return Status(
        StatusCode::kUnsupported,
        fmt::format("{}: keys and values of different length are not supported", gguf.path()));
  }
  spec->rope_dim = keys.Or("rope.dimension_count", spec->head_dim);
  if (spec->head_dim == 0 || spec->head_dim % 8 != 0 || spec->head_dim > kMaxHeadDim ||
      spec->rope_dim % 2 != 0 || spec->rope_dim > spec->head_dim ||
      spec->num_heads * spec->head_dim % 32 != 0) {
    return Status(StatusCode::kUnsupported,
                  fmt::format("{}: {} heads of {} dimensions ({} rotated) are not supported",
                              gguf.path(), spec->num_heads, spec->head_dim, spec->rope_dim));
  }
  return Status::Ok();
}

// What every architecture has. Limits are far above any real model, and keep products of sizes from
// overflowing.
Status ReadCommonConfig(const GgufFile& gguf, TransformerConfig* config) {
  ModelSpec& spec = config->spec;
  const KeyReader keys(gguf, spec.architecture);
  TRELLIS_ASSIGN_OR_RETURN(spec.num_layers, keys.Required("block_count", 1 << 12));
  TRELLIS_ASSIGN_OR_RETURN(spec.embedding_length, keys.Required("embedding_length", 1 << 20));
  TRELLIS_ASSIGN_OR_RETURN(spec.feed_forward_length, keys.Required("feed_forward_length", 1 << 22));
  TRELLIS_ASSIGN_OR_RETURN(spec.context_length, keys.Required("context_length", 1 << 28));
  if (spec.embedding_length % 32 != 0 || spec.feed_forward_length % 32 != 0) {
    return Status(
        StatusCode::kUnsupported,
        fmt::format("{}: embedding length {} and feed-forward length {} must be multiples of 32",
                    gguf.path(), spec.embedding_length, spec.feed_forward_length));
  }
  TRELLIS_RETURN_IF_ERROR(ReadHeads(gguf, keys, &spec));
  const auto epsilon = gguf.Float(spec.architecture + ".attention.layer_norm_rms_epsilon");
  if (!epsilon)
    return Damaged(gguf, "metadata key " + spec.architecture +
                             ".attention.layer_norm_rms_epsilon is missing or not finite");
  spec.rms_epsilon = *epsilon;
  constexpr uint64_t kMean = 1;  // LLAMA_POOLING_TYPE_MEAN
  if (gguf.Integer(spec.architecture + ".pooling_type") == kMean) spec.pooling = Pooling::kMean;
  const GgufTensor* embedding = gguf.Find("token_embd.weight");
  if (embedding == nullptr) return Damaged(gguf, "tensor token_embd.weight is missing");
  spec.vocab_size = embedding->num_rows;
  if (spec.vocab_size == 0) return Damaged(gguf, "tensor token_embd.weight has no rows");
  for (const GgufTensor& tensor : gguf.tensors())
    spec.num_parameters += tensor.depth * tensor.num_rows;
  config->attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.head_dim));
  config->layer_is_local.assign(spec.num_layers, false);
  return ReadRope(gguf, keys, spec, &config->rope);
}

}  // namespace

Result<TransformerConfig> ReadTransformerConfig(const GgufFile& gguf) {
  TransformerConfig config;
  ModelSpec& spec = config.spec;
  const auto architecture = gguf.String("general.architecture");
  if (!architecture) return Damaged(gguf, "metadata key general.architecture is missing");
  spec.architecture = *architecture;
  spec.name = Printable(
      gguf.String("general.name").value_or(gguf.path().substr(gguf.path().find_last_of('/') + 1)));
  spec.file_type = FileTypeName(gguf.Integer("general.file_type").value_or(~uint64_t{0}));
  spec.file_bytes = gguf.file_bytes();
  std::string names;
  for (const Architecture& known : kArchitectures) {
    if (spec.architecture == known.name) {
      TRELLIS_RETURN_IF_ERROR(ReadCommonConfig(gguf, &config));
      TRELLIS_RETURN_IF_ERROR(known.fill(gguf, &config));
      return config;
    }
    names += names.empty() ? known.name : std::string(", ") + known.name;
  }
  return Status(StatusCode::kUnsupported,
                fmt::format("{}: architecture '{}' is not supported; these are: {}", gguf.path(),
                            spec.architecture, names));
}

}  // namespace trellis
