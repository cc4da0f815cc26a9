// PromptEncoder: rendered text of which each stretch is known to be the template's own or not, to
// tokens.
//
// A special token comes only from text that the template wrote, all of it. Everything else is
// encoded as text, even where it spells one. For a text that forges nothing the tokens are those of
// libllama's llama_tokenize(text, add_special, parse_special): the text between two special tokens
// is encoded as one run, whoever wrote it, since a pre-tokenizer looks at its neighbours.
// Immutable; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"
#include "text/tokenizer.h"

namespace trellis {

struct PromptPart {
  std::string text;
  bool literal = false;  // written by the template itself
};

class PromptEncoder {
 public:
  // `template_source` decides about tokens that the vocabulary calls user-defined: libllama takes
  // them from any text (some are runs of spaces), but where a template names one, it marks
  // something, and then it counts as special. REQUIRES: `tokenizer` outlives this.
  PromptEncoder(const Tokenizer& tokenizer, std::string_view template_source);

  // With BOS and EOS by the vocabulary's own rules.
  std::vector<TokenId> Encode(const std::vector<PromptPart>& parts) const;

 private:
  void AppendAsText(std::string_view text, std::vector<TokenId>& tokens) const;
  void AppendSpelledOut(TokenId token, std::vector<TokenId>& tokens) const;

  const Tokenizer& tokenizer_;
  // [vocab_size]: what only the template may write.
  std::vector<bool> is_marker_;
};

}  // namespace trellis
