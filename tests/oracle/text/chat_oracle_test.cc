// Prompts of chats, the same as llama-server's: the models' own templates and the real ones that
// come with llama.cpp's source.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string_view>

#include "api/requests.h"
#include "support/model_files.h"
#include "text/answer_reader.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text_oracle.h"

namespace trellis {
namespace {

using Json = nlohmann::json;

struct Chat {
  const char* name;
  const char* messages;
  const char* tools;  // or ""
};

constexpr const char* kTools = R"([
  {"type": "function", "function": {"name": "get_weather", "description": "The weather.\nToday's.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
      "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
      "city": {"type": "string", "description": "Where, \"exactly\""}}}}},
  {"type": "function", "function": {"name": "add", "description": "Sum <of> two & more",
    "parameters": {"type": "object", "properties": {
      "b": {"type": "number"}, "a": {"type": "array", "items": {"type": "integer"}}}}}}])";

const Chat kChats[] = {
    {"Hello", R"([{"role":"user","content":"Hello!"}])", ""},
    {"System", R"([{"role":"system","content":"Be brief."},{"role":"user","content":"Hi  \n"}])",
     ""},
    {"Developer", R"([{"role":"developer","content":"Rules."},{"role":"user","content":"Hi"}])",
     ""},
    {"Turns", R"([{"role":"system","content":" S "},{"role":"user","content":"1+1?"},
      {"role":"assistant","content":"2"},{"role":"user","content":"\n2+2?\n"},
      {"role":"assistant","content":" 4\n\n"},{"role":"user","content":"漢字 🦙 \u0000 ü"}])",
     ""},
    {"Empty", R"([{"role":"user","content":""}])", ""},
    {"Parts",
     R"([{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b "}]},
      {"role":"assistant","content":[{"type":"text","text":"c"}]},{"role":"user","content":"d"}])",
     ""},
    {"Reasoning", R"([{"role":"user","content":"x"},
      {"role":"assistant","reasoning_content":"hm","content":"y"},{"role":"user","content":"z"}])",
     ""},
    {"ThinkInContent", R"([{"role":"user","content":"x"},
      {"role":"assistant","content":"<think>\nhm\n</think>\n\ny"},{"role":"user","content":"z"}])",
     ""},
    {"WrongOrder", R"([{"role":"assistant","content":"a"},{"role":"user","content":"b"},
      {"role":"user","content":"c"},{"role":"system","content":"late"}])",
     ""},
    {"Tools", R"([{"role":"user","content":"Weather in Ulm?"}])", kTools},
    {"ToolsAndSystem", R"([{"role":"system","content":"S"},{"role":"user","content":"?"}])",
     kTools},
    {"ToolResults", R"([{"role":"user","content":"Weather in Ulm?"},
      {"role":"assistant","content":null,"tool_calls":[{"id":"call12345","type":"function",
        "function":{"name":"get_weather","arguments":"{\"unit\": \"celsius\", \"city\": \"Ulm\"}"}}]},
      {"role":"tool","tool_call_id":"call12345","name":"get_weather","content":"{\"t\": 7, \"x\": [1]}"},
      {"role":"assistant","content":"7 degrees."},{"role":"user","content":"Thanks"}])",
     kTools},
    {"TwoCalls", R"([{"role":"system","content":"S"},{"role":"user","content":"Both!"},
      {"role":"assistant","content":"Let me see.","tool_calls":[
        {"id":"aaaaaaaa1","type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"A & B\"}"}},
        {"id":"aaaaaaaa2","type":"function","function":{"name":"add","arguments":"{\"a\":[1,2],\"b\":0.5}"}}]},
      {"role":"tool","tool_call_id":"aaaaaaaa1","content":"cold"},
      {"role":"tool","tool_call_id":"aaaaaaaa2","content":"3.5"}])",
     kTools},
    {"ResultsWithoutTools", R"([{"role":"user","content":"x"},
      {"role":"assistant","content":"","tool_calls":[{"id":"123456789","type":"function",
        "function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","tool_call_id":"123456789","content":"y"}])",
     ""},
};

struct Model {
  const char* name;
  const char* file;
};
const Model kModels[] = {
    {"SmolLM2", "SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"Qwen25Coder", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"},
    {"Gemma3", "gemma-3-270m-q4_k_m.gguf"},
};

// A template that both write themselves, to see what real ones do not use.
constexpr const char* kOwnTemplate =
    "{%- macro show(m, depth=0) -%}{{ '  ' * depth }}[{{ m.role | upper }}]{{ caller() if caller }}"
    "{{ m['content'] | trim }}{%- endmacro -%}"
    "{{ bos_token }}{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'nobody' %}"
    "{% set ns.n = ns.n + 1 %}{{ loop.index0 }}/{{ loop.length }}{{ '*' if loop.first else '-' }}"
    "{{ show(m, depth=ns.n % 3) }}|{{ (m.content ~ '') | length }}"
    "{{ m.content[:3] }}{{ m.content.split(' ') | join('_') }}{{ m.content | replace('a', 'AA') "
    "}}\n"
    "{% else %}none{% endfor %}{{ messages | tojson }}{{ tools | tojson(indent=2) if tools }}"
    "{% if add_generation_prompt %}{{ eos_token }}>{% endif %}";

std::vector<std::string> Templates() {
  std::vector<std::string> names;
  for (const auto& file :
       std::filesystem::directory_iterator(std::string(LLAMA_SOURCE) + "/models/templates")) {
    if (file.path().extension() == ".jinja") names.push_back(file.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> Questions(const std::string& source) {
  std::vector<std::string> questions;
  for (const Chat& chat : kChats) {
    questions.insert(questions.end(), {"chat", source, chat.messages, chat.tools});
  }
  return questions;
}

Result<ChatPrompt> Render(const ChatTemplate& chat_template, const Chat& chat) {
  std::string body = std::string("{\"messages\":") + chat.messages;
  if (chat.tools[0] != '\0') body += std::string(",\"tools\":") + chat.tools;
  ApiResult<ChatRequest> request = ParseChatRequest(body + "}");
  if (!request.ok()) return Status(StatusCode::kInternal, request.error().message);
  return chat_template.Render(request.value().messages, {.tools_json = request.value().tools_json});
}

// Every chat by one template; how many of them the template took.
size_t Compare(const Tokenizer& tokenizer, const std::string& model, const std::string& source) {
  auto chat_template = ChatTemplate::Create(tokenizer, source);
  if (!chat_template.ok()) {
    ADD_FAILURE() << chat_template.status().message();
    return 0;
  }
  const std::vector<std::string> answers = AskReference(model, Questions(source));
  if (answers.size() != 3 * std::size(kChats)) {
    ADD_FAILURE() << answers.size() << " answers";
    return 0;
  }
  size_t taken = 0;
  auto answer = answers.begin();
  for (const Chat& chat : kChats) {
    SCOPED_TRACE(chat.name);
    const std::string verdict = *answer++, text = *answer++, tokens = *answer++;
    const Result<ChatPrompt> prompt = Render(**chat_template, chat);
    if (verdict == "ok") {
      EXPECT_TRUE(prompt.ok()) << prompt.status().message();
      if (!prompt.ok()) continue;
      EXPECT_EQ(prompt->text, text);
      EXPECT_EQ(JoinTokens(prompt->tokens), tokens);
      taken++;
    } else {
      EXPECT_FALSE(prompt.ok()) << "the reference refused: " << text;
    }
  }
  return taken;
}

class OwnTemplate : public testing::TestWithParam<Model> {};

TEST_P(OwnTemplate, RendersTheSame) {
  const std::string model = RealModelPath(GetParam().file);
  auto tokenizer = Tokenizer::Load(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const std::string source = (*tokenizer)->chat_template();
  EXPECT_GT(Compare(**tokenizer, model, source.empty() ? "chatml" : source), 4u);
  EXPECT_GT(Compare(**tokenizer, model, kOwnTemplate), 4u);
}

INSTANTIATE_TEST_SUITE_P(Models, OwnTemplate, testing::ValuesIn(kModels),
                         [](const auto& info) { return std::string(info.param.name); });

class RealTemplate : public testing::TestWithParam<std::string> {};

TEST_P(RealTemplate, RendersTheSame) {
  const std::string model = RealModelPath(kModels[0].file);
  auto tokenizer = Tokenizer::Load(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  const std::string source =
      ReadFileOrDie(std::string(LLAMA_SOURCE) + "/models/templates/" + GetParam() + ".jinja");
  EXPECT_GT(Compare(**tokenizer, model, source), 0u);
}

// Templates whose history of a call is not what the model writes behind their prompt: three of them
// begin thoughts there that the history leaves out, one has an id that the model does not write.
constexpr std::array<std::string_view, 4> kOtherHistory = {"Apriel-1.6-15b-Thinker-fixed",
                                                           "MiniMax-M2", "NVIDIA-Nemotron-Nano-v2",
                                                           "Mistral-Small-3.2-24B-Instruct-2506"};

// What the history has where `prompt` ends: the model's turn, and what follows it. Some prompts end
// with empty thoughts that it leaves out.
std::string BehindPrompt(const std::string& prompt, const std::string& history) {
  size_t begin = static_cast<size_t>(
      std::mismatch(prompt.begin(), prompt.end(), history.begin(), history.end()).first -
      prompt.begin());
  constexpr size_t kLongestTag = 12;
  if (begin < prompt.size()) {
    const size_t tag = prompt.rfind('<', begin);
    if (tag != prompt.npos && begin - tag < kLongestTag) begin = tag;
  }
  return history.substr(begin);
}

// Nothing is known of a format but the template: what it makes of a call in the history, as the
// model would write it byte for byte, has to be read as that call, in deltas.
TEST_P(RealTemplate, ACallThatItWritesIsRead) {
  const std::string model = RealModelPath(kModels[0].file);
  auto tokenizer = Tokenizer::Load(model);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
  auto chat_template = ChatTemplate::Create(
      **tokenizer,
      ReadFileOrDie(std::string(LLAMA_SOURCE) + "/models/templates/" + GetParam() + ".jinja"));
  ASSERT_TRUE(chat_template.ok());
  const auto capabilities = (*chat_template)->capabilities();
  if (std::count(capabilities.begin(), capabilities.end(), "tools") == 0)
    GTEST_SKIP() << "it has no calls";
  const std::string arguments = R"({"city":"Ulm","unit":"celsius"})";
  const ChatOptions options{.tools_json = kTools, .thinks = false};
  std::vector<ChatMessage> messages(3);
  messages[0].role = "user", messages[0].content = "Weather?";
  messages[1].role = "assistant";
  messages[1].tool_calls_json =
      Json({{{"id", "call00001"},
             {"type", "function"},
             {"function", {{"name", "get_weather"}, {"arguments", arguments}}}}})
          .dump();
  messages[2].role = "tool", messages[2].content = "9 degrees", messages[2].name = "get_weather";
  messages[2].tool_call_id = "call00001";
  const auto prompt = (*chat_template)->Render({messages[0]}, options);
  const auto history = (*chat_template)->Render(messages, options);
  if (!prompt.ok()) GTEST_SKIP() << prompt.status().message();
  if (!history.ok()) GTEST_SKIP() << history.status().message();

  AnswerReader reader(prompt->format->syntax);
  AnswerDelta::Call read;
  for (const char c : BehindPrompt(prompt->text, history->text)) {
    reader.Add({&c, 1});
    for (const AnswerDelta::Call& call : reader.Read().calls) {
      EXPECT_EQ(call.index, 0u);
      read.name += call.name;
      read.arguments += call.arguments;
    }
    const Json value = Json::parse(read.arguments, nullptr, /*allow_exceptions=*/false);
    if (value == Json::parse(arguments)) break;
  }
  const bool is_other =
      std::find(kOtherHistory.begin(), kOtherHistory.end(), GetParam()) != kOtherHistory.end();
  EXPECT_EQ(read.name, is_other ? "" : "get_weather");
  EXPECT_EQ(Json::parse(read.arguments, nullptr, false) == Json::parse(arguments), !is_other)
      << read.arguments << "\n"
      << BehindPrompt(prompt->text, history->text);
}

INSTANTIATE_TEST_SUITE_P(Files, RealTemplate, testing::ValuesIn(Templates()), [](const auto& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

}  // namespace
}  // namespace trellis
