// The oracle on small random models: every architecture with what is particular about it, and every
// tensor type. Random weights hide nothing: each one matters to the logits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <random>

#include "model/tiny_gguf.h"
#include "oracle_check.h"

namespace trellis {
namespace {

constexpr size_t kTokens = 544;  // more than one segment of attention (kernels/attention.h)

struct TinyCase {
  std::string name;
  TinyShape shape;
  size_t num_files = 1;
  // Keys and values in 8 bits; keys with two large biases, as Qwen's.
  enum class Kv { kDefault, kQ8_0, kQ8_0BiasedKeys } kv = Kv::kDefault;
};

void PrintTo(const TinyCase& tiny, std::ostream* out) {
  *out << tiny.name;
}

void BiasKeys(const TinyShape& shape, TinyGguf* gguf) {
  for (size_t layer = 0; layer < shape.num_layers; layer++) {
    std::vector<float>& bias = gguf->Find(fmt::format("blk.{}.attn_k.bias", layer)).values;
    for (size_t head = 0; head < bias.size(); head += shape.head_dim)
      bias[head + shape.head_dim - 1] += 60, bias[head + shape.head_dim - 3] -= 25;
  }
}

class TinyModels : public testing::TestWithParam<TinyCase> {};

TEST_P(TinyModels, AreAsCloseToTheTruthAsLibllama) {
  const TinyCase& tiny = GetParam();
  const std::filesystem::path folder = ORACLE_WORK_DIR "/tiny";
  std::filesystem::create_directories(folder);
  TinyGguf gguf = MakeTinyModel(tiny.shape);
  if (tiny.kv == TinyCase::Kv::kQ8_0BiasedKeys) BiasKeys(tiny.shape, &gguf);
  std::vector<std::string> files = {(folder / (tiny.name + ".gguf")).string()};
  if (tiny.num_files == 1) {
    WriteGguf(gguf, files[0]);
  } else {
    files = WriteGgufSplits(gguf, (folder / tiny.name).string(), tiny.num_files);
  }

  Subject subject;
  subject.name = tiny.name;
  subject.path = files[0];
  std::mt19937 random(7);
  for (size_t i = 0; i < kTokens; i++) {
    subject.tokens.push_back(static_cast<TokenId>(random() % tiny.shape.vocab_size));
  }
  subject.kernels = AvailableKernels();
  const bool is_float = !ggml_is_quantized(tiny.shape.type);
  subject.weights = is_float ? Subject::Weights::kFloat : Subject::Weights::kQuantized;
  if (tiny.kv != TinyCase::Kv::kDefault) subject.kv = Subject::Kv::kQ8_0;
  CheckAgainstLlama(subject);
  for (const std::string& file : files) std::filesystem::remove(file);
}

std::vector<TinyCase> Architectures() {
  using Output = TinyShape::Output;
  std::vector<TinyCase> cases;
  cases.push_back({"llama", {}});
  cases.push_back({"llama_three_files", {.seed = 2}, 3});
  cases.push_back({"llama_tied_odd_sizes",
                   {.embedding_length = 96,
                    .feed_forward_length = 224,
                    .num_heads = 3,
                    .num_kv_heads = 1,
                    .head_dim = 32,
                    .vocab_size = 131,
                    .output = Output::kTied}});
  // Llama 3's: long waves are stretched.
  cases.push_back(
      {"llama_rope_divisors",
       {.rope_divisors = {1, 1, 1, 1.5f, 2.5f, 4, 8, 8}, .keys = {{"rope.freq_base", 500000.0f}}}});
  cases.push_back({"llama_rope_linear",
                   {.keys = {{"rope.scaling.type", "linear"}, {"rope.scaling.factor", 4.0f}}}});
  cases.push_back({"llama_rope_yarn",
                   {.head_dim = 32,
                    .keys = {{"rope.scaling.type", "yarn"},
                             {"rope.scaling.factor", 4.0f},
                             {"rope.scaling.original_context_length", uint32_t{128}}}}});
  // Keys that libllama reads for other architectures only.
  cases.push_back({"llama_rope_yarn_more_keys",
                   {.head_dim = 32,
                    .keys = {{"rope.scaling.type", "yarn"},
                             {"rope.scaling.factor", 8.0f},
                             {"rope.scaling.original_context_length", uint32_t{64}},
                             {"rope.scaling.attn_factor", 1.2f},
                             {"rope.scaling.yarn_beta_fast", 8.0f},
                             {"rope.scaling.yarn_beta_slow", 2.0f},
                             {"rope.scaling.yarn_log_multiplier", 0.5f}}}});
  cases.push_back({"qwen2_tied", {.architecture = "qwen2", .output = Output::kTied}});
  cases.push_back({"qwen2_yarn",
                   {.architecture = "qwen2",
                    .keys = {{"rope.freq_base", 1000000.0f},
                             {"rope.scaling.type", "yarn"},
                             {"rope.scaling.factor", 2.0f},
                             {"rope.scaling.original_context_length", uint32_t{2048}}}}});
  cases.push_back({"qwen3_wide_heads",
                   {.architecture = "qwen3", .num_heads = 6, .num_kv_heads = 2, .head_dim = 32}});
  const TinyShape gemma = {
      .architecture = "gemma3",
      .num_layers = 7,
      .num_kv_heads = 1,
      .head_dim = 32,
      .output = Output::kTied,
      .keys = {{"attention.sliding_window", uint32_t{70}}, {"rope.freq_base", 1000000.0f}}};
  cases.push_back({"gemma3_window", gemma});
  TinyShape stretched = gemma;  // 4B and up: only the layers without a window are stretched
  stretched.keys["rope.scaling.type"] = "linear";
  stretched.keys["rope.scaling.factor"] = 8.0f;
  cases.push_back({"gemma3_window_rope_linear", stretched});
  TinyShape pattern = gemma;
  pattern.keys["attention.sliding_window_pattern"] = uint32_t{3};
  pattern.keys["rope.freq_base_swa"] = 300.0f;
  pattern.keys["final_logit_softcapping"] = 5.0f;
  pattern.seed = 3;
  cases.push_back({"gemma3_every_third_softcap", pattern});
  // Float weights: what is left is the noise of keys and values. libllama rotates heads of
  // multiples of 64.
  const auto bytes = [](const char* architecture, size_t head_dim) {
    return TinyShape{.architecture = architecture,
                     .num_layers = 4,
                     .embedding_length = 4 * head_dim,
                     .head_dim = head_dim};
  };
  using Kv = TinyCase::Kv;
  cases.push_back({"llama_kv_q8_0_heads_of_64", bytes("llama", 64), 1, Kv::kQ8_0});
  cases.push_back({"qwen2_kv_q8_0_heads_of_128", bytes("qwen2", 128), 1, Kv::kQ8_0});
  cases.push_back({"qwen2_kv_q8_0_biased_keys", bytes("qwen2", 64), 1, Kv::kQ8_0BiasedKeys});
  cases.push_back({"gemma3_kv_q8_0_window", gemma, 1, Kv::kQ8_0});
  return cases;
}

// Types of blocks of 32 in widths that are no multiple of 256, those of 256 in one that is.
std::vector<TinyCase> Types() {
  std::vector<TinyCase> cases;
  for (const ggml_type type :
       {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q5_0,
        GGML_TYPE_Q5_1, GGML_TYPE_Q8_0, GGML_TYPE_IQ4_NL, GGML_TYPE_MXFP4}) {
    cases.push_back({std::string("type_") + ggml_type_name(type),
                     {.embedding_length = 160,
                      .feed_forward_length = 352,
                      .num_heads = 5,
                      .num_kv_heads = 1,
                      .head_dim = 32,
                      .vocab_size = 192,
                      .type = type}});
  }
  for (const ggml_type type : {GGML_TYPE_Q2_K, GGML_TYPE_Q3_K, GGML_TYPE_Q4_K, GGML_TYPE_Q5_K,
                               GGML_TYPE_Q6_K, GGML_TYPE_IQ4_XS}) {
    cases.push_back({std::string("type_") + ggml_type_name(type),
                     {.embedding_length = 256,
                      .feed_forward_length = 512,
                      .num_heads = 8,
                      .num_kv_heads = 2,
                      .head_dim = 32,
                      .vocab_size = 192,
                      .type = type}});
  }
  return cases;
}

const auto kName = [](const testing::TestParamInfo<TinyCase>& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Architecture, TinyModels, testing::ValuesIn(Architectures()), kName);
INSTANTIATE_TEST_SUITE_P(Type, TinyModels, testing::ValuesIn(Types()), kName);

}  // namespace
}  // namespace trellis
