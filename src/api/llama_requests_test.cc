// What llama-server's own requests for text can say beside OpenAI's.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "api/json_text.h"
#include "api/requests.h"

namespace trellis {
namespace {

// As ggml-org/llama.vim sends it with each key stroke, and with text that it expects to be asked
// for.
TEST(LlamaInfillTest, TakesWhatItsEditorPlugInSends) {
  auto parsed = ParseLlamaInfill(R"({"id_slot":0,"input_prefix":"a\n","input_suffix":"\nb\n",
    "input_extra":[{"text":"c","time":[1,2],"filename":"d.c"}],"prompt":"  x","n_predict":128,
    "stop":[],"n_indent":2,"top_k":40,"top_p":0.9,"stream":false,
    "samplers":["top_k","top_p","infill"],"cache_prompt":true,"t_max_prompt_ms":500,
    "t_max_predict_ms":250,"response_fields":["content","timings/prompt_n","truncated"]})");
  ASSERT_TRUE(parsed.ok()) << parsed.error().message;
  const CompletionRequest& request = parsed.value();
  EXPECT_EQ(request.response_fields,
            (std::vector<std::string>{"content", "timings/prompt_n", "truncated"}));
  EXPECT_EQ(request.generation.most_time, std::chrono::milliseconds(250));
  EXPECT_EQ(request.generation.min_indent, 2u);
  const SamplingFields& s = request.generation.sampling;
  EXPECT_EQ(s.top_k, 40);
  EXPECT_FLOAT_EQ(s.top_p, 0.9f);
  EXPECT_FLOAT_EQ(s.min_p, 0) << "which is not among the samplers";
  EXPECT_FLOAT_EQ(s.temperature, 1);

  auto ahead = ParseLlamaInfill(R"({"input_prefix":"","input_suffix":"","prompt":"","n_predict":0,
    "temperature":0.0,"stream":false,"samplers":[],"t_max_prompt_ms":1,"t_max_predict_ms":1,
    "response_fields":[""]})");
  ASSERT_TRUE(ahead.ok()) << ahead.error().message;
  EXPECT_TRUE(ahead.value().generation.only_prompt);
  EXPECT_EQ(ahead.value().response_fields, std::vector<std::string>{""});
}

TEST(LlamaCompletionTest, ResponseFieldsAreNames) {
  const auto error_of = [](const std::string& fields) {
    auto parsed = ParseLlamaCompletion(R"({"prompt":"a","response_fields":)" + fields + "}");
    return parsed.ok() ? "" : parsed.error().param;
  };
  EXPECT_EQ(error_of("null"), "");
  EXPECT_EQ(error_of(R"("content")"), "response_fields");
  EXPECT_EQ(error_of(R"(["content",1])"), "response_fields[1]");
  EXPECT_EQ(error_of(Json(std::vector<std::string>(128, "a")).dump()), "");
  EXPECT_EQ(error_of(Json(std::vector<std::string>(129, "a")).dump()), "response_fields");
}

TEST(LlamaCompletionTest, SamplersThatAreLeftOutAreOff) {
  const auto sampling = [](const std::string& samplers) {
    auto parsed = ParseLlamaCompletion(R"({"prompt":"a","temperature":0.5,"top_k":4,"top_p":0.5,
      "min_p":0.5,"typical_p":0.5,"repeat_penalty":2,"presence_penalty":1,"frequency_penalty":1,
      "samplers":)" + samplers + "}");
    EXPECT_TRUE(parsed.ok()) << samplers << parsed.error().message;
    const SamplingFields s = parsed.value().generation.sampling;
    return std::vector<float>{s.repetition_penalty,
                              s.presence_penalty,
                              s.frequency_penalty,
                              float(s.top_k),
                              s.typical_p,
                              s.top_p,
                              s.min_p,
                              s.temperature};
  };
  const std::vector<float> all = {2, 1, 1, 4, 0.5, 0.5, 0.5, 0.5}, none = {1, 0, 0, 0, 1, 1, 0, 1};
  EXPECT_EQ(sampling("null"), all);
  EXPECT_EQ(sampling("[]"), none);
  EXPECT_EQ(sampling(R"("")"), none);
  EXPECT_EQ(sampling(R"("edskypmxt")"), all);
  EXPECT_EQ(sampling(R"(["infill","xtc","dry","adaptive_p","top_n_sigma"])"), none);
  EXPECT_EQ(sampling(R"(["penalties","Top-K","typ","nucleus","minp","temp"])"), all);
  EXPECT_EQ(sampling(R"(["dry","top_k","xtc","temperature"])"),
            (std::vector<float>{1, 0, 0, 4, 1, 1, 0, 0.5}));
}

}  // namespace
}  // namespace trellis
