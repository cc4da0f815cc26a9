// Grammars: llama.cpp's, with limits, since they come from anyone.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "work_limits.h"
#include "llama-grammar.h"
#include "llama-vocab.h"
#include "trellis_llama.h"

namespace trellis_llama {
namespace {

constexpr char kWhat[] = "the grammar";
// About a second, once.
constexpr size_t kParseWork = size_t{1} << 28;
// Some milliseconds: once for each answer.
constexpr size_t kCopyWork = size_t{1} << 22;
// For one token, beside which others wait: a schema of a hundred members takes 10^7 where all of a vocabulary of
// 150,000 is looked at.
constexpr size_t kTokenWork = size_t{1} << 27;

}  // namespace

void GrammarDeleter::operator()(llama_grammar* grammar) const { llama_grammar_free_impl(grammar); }

TextGrammar::TextGrammar(const llama_vocab* vocab, const std::string& gbnf) {
  if (gbnf.find_first_not_of(" \t\r\n") == std::string::npos) throw std::runtime_error("it is empty");
  const Budget budget(kParseWork, kWhat);
  TakeErrors();
  grammar_.reset(llama_grammar_init_impl(vocab, gbnf.c_str(), "root", false, nullptr, 0, nullptr, 0));
  if (grammar_ == nullptr) {
    const std::string errors = TakeErrors();
    throw std::runtime_error(errors.empty() ? "it cannot be read" : errors);
  }
  if (grammar_->stacks.empty()) throw std::runtime_error("it matches no text");
}

TextGrammar::TextGrammar(const TextGrammar& other) {
  const Budget budget(kCopyWork, kWhat);
  // Each element of a stack is looked for among those of all rules.
  const llama_grammar& grammar = *other.grammar_;
  size_t num_elements = 0, num_places = 0;
  for (const llama_grammar_rule& rule : grammar.rules) num_elements += rule.size();
  for (const llama_grammar_stack& stack : grammar.stacks) num_places += stack.size();
  Charge(num_elements * (num_places + 1));
  grammar_.reset(llama_grammar_clone_impl(grammar));
}

bool TextGrammar::Allows(int32_t token) const {
  if (static_cast<uint32_t>(token) >= grammar_->vocab->n_tokens()) return false;
  const Budget budget(kTokenWork, kWhat);
  llama_token_data data = {token, 0, 0};
  llama_token_data_array one = {&data, 1, -1, false};
  llama_grammar_apply_impl(*grammar_, &one);
  return data.logit > -INFINITY;
}

void TextGrammar::Ban(float* logits, size_t size) const {
  const Budget budget(kTokenWork, kWhat);
  thread_local std::vector<llama_token_data> all;
  all.clear();
  // Some models have more logits than tokens.
  const size_t num_tokens = std::min<size_t>(size, grammar_->vocab->n_tokens());
  std::fill(logits + num_tokens, logits + size, -INFINITY);
  for (size_t i = 0; i < num_tokens; i++) {
    if (logits[i] > -INFINITY) all.push_back({static_cast<int32_t>(i), logits[i], 0});
  }
  llama_token_data_array array = {all.data(), all.size(), -1, false};
  llama_grammar_apply_impl(*grammar_, &array);
  for (const llama_token_data& data : all) logits[data.id] = data.logit;
}

void TextGrammar::Accept(int32_t token) {
  if (grammar_->vocab->is_eog(token)) return;
  const Budget budget(kTokenWork, kWhat);
  llama_grammar_accept_impl(*grammar_, token);
}

void TextGrammar::AcceptText(const std::string& text) {
  const Budget budget(kParseWork, kWhat);
  llama_grammar_accept_str(*grammar_, text);
}

}  // namespace trellis_llama
