// A byte that chooses how the model writes calls, one that says how often its text is read, and
// what it writes. Any text is read to its end, calls come in order, each with an id and a name, and
// what was said of thoughts and calls in pieces is what is said in the end.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "text/answer_reader.h"
#include "text/chat_template.h"
#include "text/test_vocab.h"

namespace {

using namespace trellis;

constexpr const char* kTools = R"([{"type":"function","function":{"name":"get_weather",
  "description":"w","parameters":{"type":"object","properties":{"city":{"type":"string"},
  "days":{"type":"integer"}},"required":["city"]}}}])";

// JSON between tags, with thoughts before it.
constexpr const char* kTagged =
    R"({%- if tools %}<|im_start|>system
<tools>{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}</tools><|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{%- if m.reasoning_content %}{{ '\n<think>\n' + m.reasoning_content + '\n</think>\n' }}{%- endif %}
{{ m.content or '' }}{%- for c in m.tool_calls or [] %}{{ '\n<tool_call>\n{"name": "' + c.function.name +
'", "arguments": ' + (c.function.arguments | tojson) + '}\n</tool_call>' }}{%- endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %})";
// A tag for each argument.
constexpr const char* kMarkup =
    R"({%- if tools %}<|im_start|>system
<tools>{%- for tool in tools %}{{ tool | tojson }}{%- endfor %}</tools><|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{%- for c in m.tool_calls or [] %}{{ '\n<tool_call>\n<function=' + c.function.name +
'>\n' }}{%- for name, value in c.function.arguments | items %}{{ '<parameter=' + name + '>\n' }}{{ value
if value is string else value | tojson }}{{ '\n</parameter>\n' }}{%- endfor %}{{ '</function>\n</tool_call>' }}
{%- endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %})";

using Syntax = std::shared_ptr<const trellis_llama::AnswerSyntax>;

Syntax SyntaxOf(const char* source) {
  static const std::unique_ptr<Tokenizer> tokenizer =
      Load(ByteVocab({{"<|im_start|>", TokenType::kControl}, {"<|im_end|>", TokenType::kControl}}));
  ChatMessage message;
  message.role = "user";
  message.content = "hello";
  auto chat_template = ChatTemplate::Create(*tokenizer, source);
  TRELLIS_CHECK(chat_template.ok());
  const auto prompt = (*chat_template)->Render({message}, {.tools_json = kTools});
  TRELLIS_CHECK(prompt.ok());
  return prompt->format->syntax;
}

// How often it is read: after every byte, ..., at the end only.
size_t Read(const Syntax& syntax, const std::string& text, size_t step) {
  AnswerReader reader(syntax);
  std::string thoughts;
  std::vector<AnswerDelta::Call> calls;
  const auto take = [&](const AnswerDelta& delta) {
    thoughts += delta.thoughts;
    for (const AnswerDelta::Call& call : delta.calls) {
      if (call.index == calls.size()) {
        TRELLIS_CHECK(!call.id.empty() && !call.name.empty());
        calls.push_back(call);
      } else {
        TRELLIS_CHECK(call.index < calls.size() && call.id.empty() && call.name.empty());
        calls[call.index].arguments += call.arguments;
      }
    }
  };
  for (size_t i = 0; i < text.size(); i += step) {
    reader.Add(std::string_view(text).substr(i, step));
    take(reader.Read());
  }
  take(reader.Finish());
  TRELLIS_CHECK(reader.thoughts() == thoughts || syntax == nullptr);
  TRELLIS_CHECK(reader.num_calls() == calls.size());
  return calls.size();
}

const std::vector<Syntax>& Syntaxes() {
  static const std::vector<Syntax> all = [] {
    const std::vector<Syntax> made = {SyntaxOf(kTagged), SyntaxOf(kMarkup), SyntaxOf("")};
    // What is fuzzed is what reads calls.
    TRELLIS_CHECK(Read(made[0],
                       "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": "
                       "\"Ulm\"}}\n</tool_call>",
                       5) == 1);
    TRELLIS_CHECK(Read(made[1],
                       "<tool_call>\n<function=get_weather>\n<parameter=city>\nUlm\n</parameter>\n"
                       "</function>\n</tool_call>",
                       5) == 1);
    return made;
  }();
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 2, size - 2);
  Read(Syntaxes()[data[0] % Syntaxes().size()], text, 1 + size_t{data[1]});
  return 0;
}
