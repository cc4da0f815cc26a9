// Loading: what a file says about its model, and what is said about a file that is wrong.
#include "model/model.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernels/kernels.h"
#include "model/tiny_gguf.h"
#include "model/transformer_config.h"
#include "os/compute_pool.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;

class ModelTest : public testing::Test {
 protected:
  ModelTest()
      : path_((fs::path(testing::TempDir()) / ("trellis_model_" + std::to_string(getpid())))
                  .string()),
        pool_(ComputePool::Create(2).value()) {}
  ~ModelTest() override { fs::remove(path_); }

  Result<std::unique_ptr<Model>> Load(const TinyGguf& gguf) {
    WriteGguf(gguf, path_);
    return Model::Load(path_, *AvailableKernels().back(), *pool_, {});
  }
  Result<TransformerConfig> Config(const TinyShape& shape) {
    WriteGguf(MakeTinyModel(shape), path_);
    const auto gguf = GgufFile::Open(path_);
    return gguf.ok() ? ReadTransformerConfig(**gguf) : gguf.status();
  }
  // Expects one line that names the file and has `what` in it.
  void ExpectRefused(const TinyGguf& gguf, StatusCode code, const std::string& what) {
    const auto model = Load(gguf);
    ASSERT_FALSE(model.ok()) << "expected: " << what;
    const std::string& message = model.status().message();
    EXPECT_EQ(model.status().code(), code) << message;
    EXPECT_EQ(message.rfind(path_ + ": ", 0), 0u) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  void ExpectKeyRefused(const std::string& key, const TinyValue& value, StatusCode code,
                        const std::string& what) {
    SCOPED_TRACE(key);
    TinyGguf gguf = MakeTinyModel({});
    gguf.keys[key] = value;
    ExpectRefused(gguf, code, what);
  }

  const std::string path_;
  const std::unique_ptr<ComputePool> pool_;
};

TEST_F(ModelTest, SpecSaysWhatTheFileSays) {
  TinyGguf gguf = MakeTinyModel({.head_dim = 24, .type = GGML_TYPE_F16});
  gguf.keys["general.name"] = "Tiny\x1B[2J";
  gguf.keys["general.file_type"] = uint32_t{1};
  const auto model = Load(gguf);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const ModelSpec& spec = (*model)->spec();
  EXPECT_EQ(spec.architecture, "llama");
  EXPECT_EQ(spec.name, "Tiny?[2J") << "it is printed to terminals";
  EXPECT_EQ(spec.file_type, "F16");
  EXPECT_EQ(spec.num_layers, 2u);
  EXPECT_EQ(spec.embedding_length, 64u);
  EXPECT_EQ(spec.feed_forward_length, 96u);
  EXPECT_EQ(spec.num_heads, 4u);
  EXPECT_EQ(spec.num_kv_heads, 2u);
  EXPECT_EQ(spec.head_dim, 24u);
  EXPECT_EQ(spec.rope_dim, 24u);
  EXPECT_EQ(spec.vocab_size, 96u);
  EXPECT_EQ(spec.context_length, 4096u);
  size_t parameters = 0;
  for (const TinyTensor& tensor : gguf.tensors) parameters += tensor.values.size();
  EXPECT_EQ(spec.num_parameters, parameters);
  EXPECT_EQ(spec.file_bytes, fs::file_size(path_));
  EXPECT_EQ((*model)->page_layout(),
            (PageLayout{2, 2, 24, AvailableKernels().back()->attention.fastest_type}));
}

TEST_F(ModelTest, PagesHoldTheTypeAskedFor) {
  WriteGguf(MakeTinyModel({}), path_);
  LoadOptions options;
  options.kv_type = KvType::kBf16;
  const auto model = Model::Load(path_, *AvailableKernels().back(), *pool_, options);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ((*model)->page_layout(), (PageLayout{2, 2, 16, KvType::kBf16}));
}

TEST_F(ModelTest, MissingKeysMeanWhatLlamaCppTakesThemFor) {
  TinyGguf gguf = MakeTinyModel({.num_kv_heads = 4});
  for (const char* key : {"attention.head_count_kv", "attention.key_length",
                          "attention.value_length", "vocab_size"}) {
    gguf.keys.erase(std::string("llama.") + key);
  }
  const auto model = Load(gguf);
  ASSERT_TRUE(model.ok()) << model.status().message();
  EXPECT_EQ((*model)->spec().num_kv_heads, 4u);
  EXPECT_EQ((*model)->spec().head_dim, 16u);
}

TEST_F(ModelTest, ArchitecturesDifferInTheseThings) {
  const auto llama = Config({}), qwen2 = Config({.architecture = "qwen2"}),
             qwen3 = Config({.architecture = "qwen3"}),
             gemma3 = Config({.architecture = "gemma3",
                              .num_layers = 13,
                              .keys = {{"attention.sliding_window", uint32_t{512}}}});
  ASSERT_TRUE(llama.ok() && qwen2.ok() && qwen3.ok() && gemma3.ok());
  EXPECT_EQ(llama->rope_pairing, RopePairing::kAdjacent);
  EXPECT_EQ(qwen2->rope_pairing, RopePairing::kHalves);
  EXPECT_FALSE(llama->qk_norm || qwen2->qk_norm);
  EXPECT_TRUE(qwen3->qk_norm && gemma3->qk_norm);
  EXPECT_TRUE(gemma3->post_norms);
  EXPECT_FALSE(qwen3->post_norms);
  EXPECT_EQ(gemma3->activation, Activation::kGelu);
  EXPECT_EQ(gemma3->embedding_scale, 8.0f);
  EXPECT_EQ(llama->embedding_scale, 1.0f);
  EXPECT_EQ(gemma3->spec.sliding_window, 512u);
  for (size_t layer = 0; layer < 13; layer++) {
    EXPECT_EQ(gemma3->layer_is_local[layer], layer != 5 && layer != 11) << layer;
  }
}

TEST_F(ModelTest, WhatIsNotSupportedIsNamed) {
  constexpr auto kUnsupported = StatusCode::kUnsupported;
  ExpectKeyRefused("general.architecture", "mamba", kUnsupported,
                   "architecture 'mamba' is not supported; these are: llama, qwen2, qwen3, gemma3");
  ExpectKeyRefused("llama.expert_count", uint32_t{8}, kUnsupported, "mixture-of-experts");
  ExpectKeyRefused("llama.rope.scaling.type", "longrope", kUnsupported, "'longrope'");
  ExpectKeyRefused("llama.attention.value_length", uint32_t{8}, kUnsupported,
                   "keys and values of different length");
  ExpectKeyRefused("llama.embedding_length", uint32_t{48}, kUnsupported, "multiples of 32");
}

TEST_F(ModelTest, KeysThatAreAbsurdAreNamed) {
  constexpr auto kDataLoss = StatusCode::kDataLoss;
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length",
                          "context_length", "attention.head_count"}) {
    const std::string name = std::string("llama.") + key;
    ExpectKeyRefused(name, uint32_t{0}, kDataLoss, "metadata key " + name + " is 0");
    ExpectKeyRefused(name, "many", kDataLoss, "metadata key " + name + " is missing");
    ExpectKeyRefused(name, ~uint32_t{0}, kDataLoss, "metadata key " + name + " is 4294967295");
  }
  ExpectKeyRefused("llama.attention.head_count_kv", uint32_t{3}, kDataLoss,
                   "4 query heads over 3 kv heads");
  ExpectKeyRefused("llama.rope.scaling.factor", -2.0f, kDataLoss, "not positive");
  ExpectKeyRefused("llama.rope.dimension_count", uint32_t{8}, kDataLoss,
                   "rope.dimension_count is 8, expected 16");
}

TEST_F(ModelTest, EveryMissingKeyOrTensorIsNamed) {
  const TinyGguf whole = MakeTinyModel({.architecture = "gemma3"});
  for (const char* key :
       {"block_count", "embedding_length", "feed_forward_length", "context_length",
        "attention.head_count", "attention.layer_norm_rms_epsilon"}) {
    TinyGguf gguf = whole;
    gguf.keys.erase(std::string("gemma3.") + key);
    ExpectRefused(gguf, StatusCode::kDataLoss,
                  std::string("metadata key gemma3.") + key + " is missing");
  }
  for (const TinyTensor& tensor : whole.tensors) {
    if (tensor.name == "output.weight") continue;  // then the embedding is the output, too
    SCOPED_TRACE(tensor.name);
    TinyGguf gguf = whole;
    gguf.Remove(tensor.name);
    ExpectRefused(gguf, StatusCode::kDataLoss, "tensor " + tensor.name + " is missing");
  }
}

TEST_F(ModelTest, ATensorThatNobodyReadsIsNamed) {
  const std::vector<float> ones(16, 1);
  TinyGguf gguf = MakeTinyModel({.rope_divisors = std::vector<float>(8, 1)});
  gguf.tensors.push_back({"cls.output.weight", {16}, GGML_TYPE_F32, ones});
  const auto model = Load(gguf);
  EXPECT_TRUE(model.ok()) << model.status().message();
  for (const char* name :
       {"blk.1.attn_q_norm.weight", "blk.2.attn_norm.weight", "blk.0.attn_q.scale", "v.patch"}) {
    TinyGguf other = gguf;
    other.tensors.push_back({name, {16}, GGML_TYPE_F32, ones});
    ExpectRefused(other, StatusCode::kUnsupported, std::string("tensor ") + name + " is none of");
  }
}

TEST_F(ModelTest, AnEmptyVocabularyIsRefused) {
  TinyGguf gguf = MakeTinyModel({.output = TinyShape::Output::kTied});
  const std::string name = "token_embd.weight";
  const TinyTensor embedding = gguf.Find(name);
  gguf.Remove(name);
  gguf.tensors.push_back(embedding);  // the last, so that nothing lies behind it
  WriteGguf(gguf, path_);
  {  // ggml writes no such shape: it follows the name and the number of dimensions
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    const size_t shape = bytes.find(name) + name.size() + sizeof(uint32_t);
    file.seekp(static_cast<std::streamoff>(shape + sizeof(uint64_t)));
    file.write("\0\0\0\0\0\0\0\0", sizeof(uint64_t));
  }
  const auto model = Model::Load(path_, *AvailableKernels().back(), *pool_, {});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), StatusCode::kDataLoss);
  EXPECT_EQ(model.status().message(), path_ + ": tensor token_embd.weight has no rows");
}

TEST_F(ModelTest, EveryTensorOfTheWrongShapeIsNamed) {
  const TinyGguf whole =
      MakeTinyModel({.architecture = "qwen2", .rope_divisors = std::vector<float>(8, 1)});
  for (const TinyTensor& tensor : whole.tensors) {
    SCOPED_TRACE(tensor.name);
    TinyGguf gguf = whole;
    TinyTensor& bent = gguf.Find(tensor.name);
    // The rows of the embedding are the vocabulary: there may be any number.
    bent.shape[tensor.name == "token_embd.weight" ? 0 : bent.shape.size() - 1] += 32;
    bent.values.resize(static_cast<size_t>(bent.shape[0]) *
                       (bent.shape.size() > 1 ? static_cast<size_t>(bent.shape[1]) : 1));
    ExpectRefused(gguf, StatusCode::kDataLoss, "tensor " + tensor.name + " is ");
  }
}

}  // namespace
}  // namespace trellis
