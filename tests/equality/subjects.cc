#include "subjects.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "model/tiny_gguf.h"
#include "support/model_files.h"
#include "text/tokenizer.h"

namespace trellis {
namespace {

// Some of each kind of text.
constexpr const char* kText =
    "The river had risen in the night, and by morning the lower meadow was a lake with fence posts "
    "for shores. Nobody in the village was surprised; the almanac had said so, and so had the "
    "ducks.\n\nfor (size_t i = 0; i < fields.size(); i++) {\n  if (fields[i].empty()) continue;\n  "
    "total += Parse(fields[i]).value_or(42);\n}\n\n{\"name\": \"Ada\", \"year\": 1843, \"notes\": "
    "[\"A\", \"B\", \"G\"], \"paid\": null}\n\nWhat do you call a tree that remembers every path "
    "which was ever walked below it? Three of them answered at once, and each was right.";

Result<Tokens> RealText(const std::string& path) {
  TRELLIS_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::Load(path));
  Tokens tokens = tokenizer->Encode(kText, AddSpecial::kNo, SpecialTokens::kAsText);
  TRELLIS_CHECK(tokens.size() >= 144);
  tokens.resize(144);
  return tokens;
}

TinyShape TinyGemma3() {
  return {.architecture = "gemma3",
          .num_layers = 3,
          .embedding_length = 96,
          .feed_forward_length = 160,
          .num_heads = 4,
          .num_kv_heads = 2,
          .head_dim = 24,
          .vocab_size = 150,
          .output = TinyShape::Output::kTied,
          .type = GGML_TYPE_Q4_0,
          .keys = {{"attention.sliding_window", uint32_t{70}},
                   {"attention.sliding_window_pattern", uint32_t{2}}}};
}

TinyShape TinyKTypes() {
  return {.embedding_length = 256,
          .feed_forward_length = 256,
          .num_heads = 8,
          .num_kv_heads = 2,
          .head_dim = 32,
          .vocab_size = 150,
          .type = GGML_TYPE_Q4_K};
}

// As in files that are called Q4_K_M.
TinyGguf MakeTinyKTypes() {
  TinyGguf gguf = MakeTinyModel(TinyKTypes());
  for (TinyTensor& tensor : gguf.tensors) {
    if (tensor.name.find("ffn_down") != std::string::npos) tensor.type = GGML_TYPE_Q6_K;
  }
  return gguf;
}

}  // namespace

std::vector<SubjectId> AllSubjects() {
  std::vector<SubjectId> ids;
  for (const KernelTable* kernels : AvailableKernels()) {
    ids.push_back({ModelKind::kTinyGemma3, kernels, KvType::kI16});
    ids.push_back({ModelKind::kTinyGemma3, kernels, KvType::kQ8_0});
    if (kernels->isa == Isa::kScalar) continue;
    ids.push_back({ModelKind::kTinyKTypes, kernels, KvType::kF16});
    ids.push_back({ModelKind::kTinyKTypes, kernels, KvType::kBf16});
    ids.push_back({ModelKind::kSmolLm2, kernels});
    ids.push_back({ModelKind::kSmolLm2, kernels, KvType::kQ8_0});
  }
  return ids;
}

std::string SubjectName(const SubjectId& id) {
  const char* name = id.kind == ModelKind::kSmolLm2      ? "SmolLM2_"
                     : id.kind == ModelKind::kTinyGemma3 ? "TinyGemma3_"
                                                         : "TinyKTypes_";
  return std::string(name) + id.kernels->name +
         (id.kv_type ? std::string("_") + KvTypeName(*id.kv_type) : "");
}

void PrintTo(const SubjectId& id, std::ostream* out) {
  *out << SubjectName(id);
}

Tokens Subject::Turned(size_t index, size_t length) const {
  Tokens turned = text;
  std::rotate(turned.begin(), turned.begin() + static_cast<long>(13 * index), turned.end());
  turned.resize(length);
  return turned;
}

Result<Subject> LoadSubject(const SubjectId& id, size_t num_threads) {
  Subject subject;
  TRELLIS_ASSIGN_OR_RETURN(subject.pool, ComputePool::Create(num_threads));
  LoadOptions options;
  options.kv_type = id.kv_type;
  if (id.kind == ModelKind::kSmolLm2) {
    const std::string path = RealModelPath("SmolLM2-135M-Instruct.Q4_1.gguf");
    TRELLIS_ASSIGN_OR_RETURN(subject.text, RealText(path));
    TRELLIS_ASSIGN_OR_RETURN(subject.model, Model::Load(path, *id.kernels, *subject.pool, options));
    return subject;
  }
  const bool is_gemma3 = id.kind == ModelKind::kTinyGemma3;
  const auto path = std::filesystem::temp_directory_path() /
                    ("trellis_equality_" + std::to_string(getpid()) + ".gguf");
  WriteGguf(is_gemma3 ? MakeTinyModel(TinyGemma3()) : MakeTinyKTypes(), path.string());
  TRELLIS_ASSIGN_OR_RETURN(subject.model,
                           Model::Load(path.string(), *id.kernels, *subject.pool, options));
  std::filesystem::remove(path);  // it stays mapped
  std::mt19937 random(11);
  for (size_t i = 0; i < 560; i++) {
    subject.text.push_back(static_cast<TokenId>(random() % subject.model->spec().vocab_size));
  }
  return subject;
}

ColdRun::ColdRun(Model& model, Tokens tokens)
    : vocab_size_(model.spec().vocab_size), tokens_(std::move(tokens)) {
  const auto cache = MakeCacheFor(model, PagesFor(tokens_.size()));
  RunSequence(model, *cache, tokens_, {}, [&](size_t, size_t num_rows, const float* logits) {
    logits_.assign(logits, logits + num_rows * vocab_size_);
  });
}

size_t ColdRun::CountDifferent(size_t first, size_t num_rows, const float* logits) const {
  TRELLIS_CHECK(first + num_rows <= tokens_.size());
  size_t different = 0;
  for (size_t r = 0; r < num_rows; r++) {
    if (std::memcmp(logits + r * vocab_size_, row(first + r), vocab_size_ * sizeof(float)) != 0) {
      different++;
    }
  }
  return different;
}

}  // namespace trellis
