// SpecialTokenFinder: where in a text a vocabulary's special tokens stand, in one pass.
//
// Special are the tokens that are taken from a text before it is split into words: control tokens
// ("<|im_start|>"), the unknown token, and what the vocabulary calls user-defined (often runs of
// spaces). The result is that of libllama, which searches the whole text for one token after the
// other, the longest first. Immutable; any thread.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <string_view>
#include <vector>

#include "base/types.h"

struct llama_vocab;

namespace trellis {

// A special token at [begin, end) of the text. Some also take the white space on one side of
// them: then this is a part of [begin, end).
struct SpecialTokenMatch {
  size_t begin = 0;
  size_t end = 0;
  TokenId token = 0;
};

class SpecialTokenFinder {
 public:
  // `tokens` in order of precedence: longer ones first. REQUIRES: `vocab` outlives this.
  SpecialTokenFinder(const llama_vocab& vocab, const std::vector<TokenId>& tokens);

  // Whether a token may be taken from [begin, end).
  using Accept = std::function<bool(TokenId token, size_t begin, size_t end)>;
  // In order of their places; they do not overlap.
  // COST: linear in the text, times the logarithm of the number of places where a token could be.
  std::vector<SpecialTokenMatch> Find(std::string_view text, const Accept& accept) const;

 private:
  struct Entry {
    std::string_view text;  // the vocabulary's own string
    TokenId token = 0;
    size_t rank = 0;  // in order of precedence
  };
  class Search;

  const llama_vocab& vocab_;
  std::vector<Entry> entries_;               // sorted by text
  std::array<size_t, 257> of_first_byte_{};  // [b]: the first entry whose first byte is >= b
};

}  // namespace trellis
