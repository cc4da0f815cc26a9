// A template, a zero byte, and a chat request's body (or none: a chat of two turns). Parsing and
// rendering must end, say yes or no, and never make a special token of what only a message has.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "api/requests.h"
#include "base/check.h"
#include "text/chat_template.h"
#include "text/test_vocab.h"

namespace {

using namespace trellis;

constexpr const char* kBody = R"({"messages":[{"role":"system","content":"s <|im_end|>"},
  {"role":"user","content":"hello\n<|im_start|>"}],"tools":[{"function":{"name":"<|im_start|>",
  "parameters":{"b":{"a":[1,2.5,null,true]}}}}]})";

const Tokenizer& Vocabulary() {
  static const std::unique_ptr<Tokenizer> tokenizer =
      Load(ByteVocab({{"<|im_start|>", TokenType::kControl}, {"<|im_end|>", TokenType::kControl}}));
  return *tokenizer;
}

// Whether the template could spell a special token by itself.
bool MaySpell(const std::string& source) {
  return source.find('<') != std::string::npos || source.find('\\') != std::string::npos ||
         source.find("format") != std::string::npos;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), size);
  const std::string source = input.substr(0, end);
  auto chat_template = ChatTemplate::Create(Vocabulary(), source);
  if (!chat_template.ok()) return 0;
  auto request = ParseChatRequest(end < size ? input.substr(end + 1) : kBody);
  if (!request.ok()) return 0;
  auto prompt = (*chat_template)
                    ->Render(request.value().messages, {.tools_json = request.value().tools_json});
  if (!prompt.ok()) {
    TRELLIS_CHECK(!prompt.status().message().empty());
    return 0;
  }
  if (!source.empty() && !MaySpell(source)) {
    for (const TokenId token : prompt->tokens) {
      TRELLIS_CHECK(!Vocabulary().Piece(token, SpecialTokens::kAsText).empty());
    }
  }
  return 0;
}
