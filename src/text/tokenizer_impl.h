// The inside of Tokenizer, for the other files of text/.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/special_tokens.h"
#include "text/tokenizer.h"
#include "trellis_llama.h"

struct llama_vocab;

namespace trellis {

struct Tokenizer::Impl {
  trellis_llama::VocabPtr vocab;
  std::optional<SpecialTokenFinder> special_tokens;  // always there after Load
  std::string chat_template;
  // tokenizer.chat_template.tool_use: some models have a template of its own for requests with
  // tools.
  std::string tool_template;
  size_t vocab_size = 0;
  size_t longest_piece = 1;

  // Text in which no special token is looked for.
  void AppendText(std::string_view text, std::vector<TokenId>& tokens) const;

  bool Contains(TokenId token) const {
    return token >= 0 && static_cast<size_t>(token) < vocab_size;
  }
};

}  // namespace trellis
