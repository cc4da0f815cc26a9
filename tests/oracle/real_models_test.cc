// The oracle on models that people use: a page of prose and a page of code.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <ostream>
#include <sstream>

#include "oracle_check.h"
#include "support/model_files.h"
#include "text/tokenizer.h"

namespace trellis {
namespace {

std::string ReadSource(const std::string& path) {
  std::ifstream file(std::string(SOURCE_DIR "/") + path);
  std::ostringstream text;
  text << file.rdbuf();
  TRELLIS_CHECK(!text.str().empty());
  return text.str();
}

// 320 tokens of the license, then 256 of C++: more than one segment of attention
// (kernels/attention.h), and more than Gemma's window.
std::vector<TokenId> RealText(const Tokenizer& tokenizer) {
  std::vector<TokenId> tokens =
      tokenizer.Encode(ReadSource("LICENSE"), AddSpecial::kByVocabulary, SpecialTokens::kAsText);
  const std::vector<TokenId> code =
      tokenizer.Encode(ReadSource("src/base/half.h"), AddSpecial::kNo, SpecialTokens::kAsText);
  TRELLIS_CHECK(tokens.size() >= 320 && code.size() >= 256);
  tokens.resize(320);
  tokens.insert(tokens.end(), code.begin(), code.begin() + 256);
  return tokens;
}

struct RealCase {
  const char* name;  // of the model
  const char* file;
  Subject::Kv kv = Subject::Kv::kDefault;
};

std::string NameOf(const RealCase& real) {
  return std::string(real.name) + (real.kv == Subject::Kv::kQ8_0 ? "_kv_q8_0" : "");
}

void PrintTo(const RealCase& real, std::ostream* out) {
  *out << NameOf(real);
}

class RealModels : public testing::TestWithParam<RealCase> {};

TEST_P(RealModels, AreAsCloseToTheTruthAsLibllama) {
  Subject subject;
  subject.name = NameOf(GetParam());
  subject.path = RealModelPath(GetParam().file);
  subject.cached_truth = GetParam().name;
  subject.kv = GetParam().kv;
  const auto tokenizer = Tokenizer::Load(subject.path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message()
                              << "\n(scripts/fetch.py model NAME fetches it)";
  subject.tokens = RealText(**tokenizer);
  // The scalar kernels take minutes here; the tiny models are theirs.
  for (const KernelTable* kernels : AvailableKernels()) {
    if (kernels->isa != Isa::kScalar) subject.kernels.push_back(kernels);
  }
  if (subject.kernels.empty()) subject.kernels = AvailableKernels();
  CheckAgainstLlama(subject);
}

constexpr RealCase kSmolLm2 = {"SmolLM2_135M_Q4_1", "SmolLM2-135M-Instruct.Q4_1.gguf"};
constexpr RealCase kQwen = {"Qwen25_Coder_05B_Q4_K_M", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"};
constexpr RealCase kGemma3 = {"Gemma3_270M_Q4_K_M", "gemma-3-270m-q4_k_m.gguf"};

RealCase InBytes(RealCase real) {
  real.kv = Subject::Kv::kQ8_0;
  return real;
}

INSTANTIATE_TEST_SUITE_P(Oracle, RealModels,
                         testing::Values(kSmolLm2, kQwen, kGemma3, InBytes(kSmolLm2),
                                         InBytes(kQwen), InBytes(kGemma3)),
                         [](const auto& info) { return NameOf(info.param); });

}  // namespace
}  // namespace trellis
