#include "hub/model_name.h"

#include <gtest/gtest.h>

namespace trellis {
namespace {

using Paths = std::vector<std::string>;

TEST(ModelReference, IsAUserARepoAndMaybeAQuantisation) {
  const auto whole = ParseModelReference("unsloth/Qwen3-0.6B-GGUF:q8_0");
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->repo, "unsloth/Qwen3-0.6B-GGUF");
  EXPECT_EQ(whole->quant, "q8_0");
  EXPECT_EQ(ParseModelReference("a/b")->quant, "");
  EXPECT_EQ(ParseModelReference("a/b:UD-Q4_K_XL")->quant, "UD-Q4_K_XL");
  for (const char* text : {"", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b:", "a/b:c/d", "a b/c",
                           "./b", "a/.b", "-a/b", "https://x/y", "a/b:c:d", "a/\xc3\xa4"}) {
    EXPECT_FALSE(ParseModelReference(text)) << text;
  }
}

TEST(GgufName, SaysTheQuantisationAndThePart) {
  EXPECT_EQ(ParseGgufName("Qwen3-0.6B-Q4_K_M.gguf")->quant, "Q4_K_M");
  EXPECT_EQ(ParseGgufName("llama.q8_0.gguf")->quant, "Q8_0");
  EXPECT_EQ(ParseGgufName("model.gguf")->quant, "");
  EXPECT_EQ(ParseGgufName("Q4_0/model.gguf")->quant, "");
  const auto part = ParseGgufName("BF16/big-BF16-00002-of-00003.gguf");
  EXPECT_EQ(part->stem, "BF16/big-BF16");
  EXPECT_EQ(part->quant, "BF16");
  EXPECT_EQ(part->part, 2u);
  EXPECT_EQ(part->num_parts, 3u);
  EXPECT_EQ(ParseGgufName("x-00004-of-00003.gguf")->num_parts, 1u) << "there is no such part";
  for (const char* other : {"README.md", "mmproj-F16.gguf", "a/mmproj-x.gguf", "x.imatrix.gguf",
                            "x.gguf.partial", ""}) {
    EXPECT_FALSE(ParseGgufName(other)) << other;
  }
}

const Paths kPaths = {
    "README.md",
    "m-IQ4_K_M.gguf",
    "m-Q2_K.gguf",
    "m-Q4_K_M.gguf",
    "m-Q8_0.gguf",
    "mmproj-Q8_0.gguf",
    "m-UD-Q4_K_XL.gguf",
    "F16/m-F16-00002-of-00002.gguf",
    "F16/m-F16-00001-of-00002.gguf",
};

Paths Choose(const Paths& paths, const char* quant) {
  const auto chosen = ChooseModel(paths, quant);
  EXPECT_TRUE(chosen.ok()) << chosen.status().message();
  return chosen.ok() ? *chosen : Paths{};
}

TEST(ChooseModel, FindsAQuantisationHoweverItIsWritten) {
  EXPECT_EQ(Choose(kPaths, "Q8_0"), Paths{"m-Q8_0.gguf"});
  EXPECT_EQ(Choose(kPaths, "q2_k"), Paths{"m-Q2_K.gguf"});
  EXPECT_EQ(Choose(kPaths, "UD-Q4_K_XL"), Paths{"m-UD-Q4_K_XL.gguf"});
  EXPECT_EQ(Choose(kPaths, "Q4_K_XL"), Paths{"m-UD-Q4_K_XL.gguf"});
  EXPECT_EQ(Choose(kPaths, "Q4_K_M"), Paths{"m-Q4_K_M.gguf"}) << "not IQ4_K_M";
  const Paths parts = {"F16/m-F16-00001-of-00002.gguf", "F16/m-F16-00002-of-00002.gguf"};
  EXPECT_EQ(Choose(kPaths, "f16"), parts);
}

TEST(ChooseModel, TakesADefault) {
  EXPECT_EQ(Choose(kPaths, ""), Paths{"m-Q4_K_M.gguf"});
  EXPECT_EQ(Choose({"m-Q2_K.gguf", "m-Q8_0.gguf"}, ""), Paths{"m-Q8_0.gguf"});
  EXPECT_EQ(Choose({"b.gguf", "m-Q2_K.gguf"}, ""), Paths{"b.gguf"});
}

TEST(ChooseModel, SaysWhatThereIsInstead) {
  const auto message = [](const Paths& paths, const char* quant) {
    return ChooseModel(paths, quant).status().message();
  };
  EXPECT_EQ(message(kPaths, "Q3_K"),
            "it has no Q3_K, but F16, IQ4_K_M, Q2_K, Q4_K_M, Q4_K_XL, Q8_0");
  EXPECT_EQ(message({"README.md"}, ""), "it has no GGUF file");
  EXPECT_EQ(message({"m-F16-00001-of-00002.gguf"}, "F16"),
            "m-F16 has 2 parts, of which 1 are there");
}

}  // namespace
}  // namespace trellis
