// Grammar: which texts an answer may be, in GBNF, by llama.cpp.
//
//   GrammarSource   as it is written, and from where on it holds
//   Grammar         parsed once; immutable, any thread
//   GrammarState    where one answer that grows stands in it; one thread at a time
//
// Grammars come from clients: what takes too long for one token is an error, not a wait.
#pragma once

#include <memory>
#include <regex>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "sample/constraint.h"
#include "text/tokenizer.h"

namespace trellis_llama {
class TextGrammar;
}

namespace trellis {

struct GrammarSource {
  std::string gbnf;         // has a rule `root`; llama.cpp's grammars/README.md
  std::string prefix = {};  // what the prompt has begun of it
  // If there are any: it holds from where the answer has one of these words on, or what the first
  // group of one of these patterns (ECMAScript) matches; anything may come before.
  std::vector<std::string> trigger_words = {};
  std::vector<std::string> trigger_patterns = {};
};

class Grammar {
 public:
  // `tokenizer` outlives it. ERRORS: kInvalidArgument: what is wrong with it.
  static Result<std::shared_ptr<const Grammar>> Parse(const Tokenizer& tokenizer,
                                                      const GrammarSource& source);
  // Of the JSON texts that a JSON schema accepts; members are in its order. ERRORS:
  // kInvalidArgument: what is wrong with it, or cannot be held to.
  static Result<std::shared_ptr<const Grammar>> OfJsonSchema(const Tokenizer& tokenizer,
                                                             const std::string& schema);
  ~Grammar();

  // Whether it holds from the answer's start, not from a trigger on.
  bool HoldsFromStart() const { return words_.empty() && patterns_.empty(); }

 private:
  friend class GrammarState;
  Grammar(const Tokenizer& tokenizer, std::unique_ptr<trellis_llama::TextGrammar> parsed,
          const GrammarSource& source);
  // Where it begins to hold in text[from ..), or before; npos: nowhere yet. `is_all`: the text
  // begins where the answer does.
  size_t FindTrigger(const std::string& text, size_t from, bool is_all) const;

  const Tokenizer& tokenizer_;
  const std::unique_ptr<trellis_llama::TextGrammar> parsed_;  // nothing was written yet
  const std::vector<std::string> words_;
  const std::vector<std::regex> patterns_;
};

// ERRORS of all: kInvalidArgument, when the grammar takes too long here.
class GrammarState : public Constraint {
 public:
  // Takes up to some milliseconds.
  explicit GrammarState(std::shared_ptr<const Grammar> grammar);
  GrammarState(GrammarState&&) noexcept;
  ~GrammarState() override;

  Result<bool> Allows(TokenId token) const override;
  Status Ban(std::span<float> logits) const override;
  Status Accept(TokenId token) override;

 private:
  // It holds from this text on.
  void Begin(const std::string& text);

  std::shared_ptr<const Grammar> grammar_;
  std::unique_ptr<trellis_llama::TextGrammar> at_;
  bool waits_;               // for a trigger
  std::string text_;         // the end of the answer, while it waits
  bool text_is_all_ = true;  // of the answer
};

}  // namespace trellis
