#include "text/infill.h"

#include "llama-vocab.h"
#include "text/tokenizer_impl.h"

namespace trellis {
namespace {

// What stands between files where there is no token for it, as llama-server has it.
constexpr char kSnip[] = "\n\n--- snip ---\n\n";

}  // namespace

Result<std::vector<TokenId>> InfillPrompt(const Tokenizer& tokenizer, const InfillText& text) {
  const llama_vocab& vocab = *tokenizer.impl().vocab;
  const TokenId before = vocab.token_fim_pre(), after = vocab.token_fim_suf(),
                middle = vocab.token_fim_mid(), project = vocab.token_fim_rep(),
                file = vocab.token_fim_sep();
  if (before < 0 || after < 0 || middle < 0) {
    return Status(StatusCode::kUnsupported,
                  "the model's vocabulary has no tokens for filling in (FIM)");
  }
  std::vector<TokenId> tokens;
  const auto add = [&](const std::string& part) {
    const auto more = tokenizer.Encode(part, AddSpecial::kNo, SpecialTokens::kAsText);
    tokens.insert(tokens.end(), more.begin(), more.end());
  };
  if (project >= 0) {
    tokens.push_back(project);
    add("myproject\n");
  }
  for (const InfillText::File& other : text.files) {
    if (file >= 0) {
      tokens.push_back(file);
      add(other.name + "\n");
    } else {
      add(kSnip);
    }
    add(other.text);
  }
  if (file >= 0) {
    tokens.push_back(file);
    add("filename\n");
  }
  if (tokenizer.AddsBos()) tokens.push_back(tokenizer.bos());
  tokens.push_back(before);
  add(text.prefix);
  add(text.begun);
  tokens.push_back(after);
  add(text.suffix);
  tokens.push_back(middle);
  return tokens;
}

}  // namespace trellis
