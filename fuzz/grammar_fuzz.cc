// A byte, 'g' for a grammar or any other for a JSON schema, its text, and behind a zero byte what
// chooses the answer's tokens. What a request's reading lets through must compile or be refused,
// and an answer must be able to go on from wherever it was led: what Ban leaves, Allows allows, and
// Accept takes.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_text.h"
#include "api/requests.h"
#include "base/check.h"
#include "text/grammar.h"
#include "text/test_vocab.h"

namespace {

using namespace trellis;

constexpr size_t kMaxTokens = 24;

const Tokenizer& Vocabulary() {
  static const std::unique_ptr<Tokenizer> tokenizer = [] {
    TestVocab vocab = ByteVocab({{"</s>", TokenType::kControl}, {"\n\n", TokenType::kUserDefined}});
    vocab.eos = vocab.Id("</s>");
    return Load(vocab);
  }();
  return *tokenizer;
}

// The format that a request with it asks for; none where it is refused.
std::optional<TextFormat> FormatOf(bool is_grammar, const std::string& text) {
  const std::string field =
      is_grammar ? R"("grammar":)" + ToText(text) : R"("json_schema":)" + text;
  auto request = ParseCompletionRequest(R"({"prompt":"a",)" + field + "}");
  if (!request.ok()) return std::nullopt;
  return request.value().generation.format;
}

void Write(const Grammar& grammar, std::string_view choices, GrammarState state) {
  TRELLIS_CHECK(grammar.HoldsFromStart());
  std::vector<float> logits(Vocabulary().vocab_size());
  std::vector<TokenId> allowed;
  for (size_t i = 0; i < std::min(choices.size(), kMaxTokens); i++) {
    std::fill(logits.begin(), logits.end(), 1.0f);
    if (!state.Ban(logits).ok()) return;  // it takes too long here
    allowed.clear();
    for (size_t token = 0; token < logits.size(); token++)
      if (std::isfinite(logits[token])) allowed.push_back(static_cast<TokenId>(token));
    if (allowed.empty()) return;
    const TokenId token = allowed[static_cast<unsigned char>(choices[i]) % allowed.size()];
    const Result<bool> allows = state.Allows(token);
    if (!allows.ok()) return;
    TRELLIS_CHECK(*allows);
    if (!state.Accept(token).ok()) return;
    if (Vocabulary().Piece(token, SpecialTokens::kAsText).empty()) return;  // the end
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t end = std::min(input.find('\0'), input.size());
  const auto format = FormatOf(data[0] == 'g', input.substr(0, end));
  if (!format || (format->grammar.empty() && format->json_schema.empty())) return 0;
  const auto grammar = format->grammar.empty()
                           ? Grammar::OfJsonSchema(Vocabulary(), format->json_schema)
                           : Grammar::Parse(Vocabulary(), {format->grammar});
  if (!grammar.ok()) {
    TRELLIS_CHECK(grammar.status().code() == StatusCode::kInvalidArgument);
    TRELLIS_CHECK(!grammar.status().message().empty());
    return 0;
  }
  const std::string_view choices =
      end < input.size() ? std::string_view(input).substr(end + 1) : "";
  Write(**grammar, choices, GrammarState(*grammar));
  return 0;
}
