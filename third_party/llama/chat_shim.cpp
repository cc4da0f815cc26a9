// The few helpers that common/'s chat code takes from common.cpp and libllama, which are too large to bring along.
#include <stdexcept>
#include <string>
#include <vector>

#include "common.h"
#include "llama.h"
#include "log.h"

std::string string_join(const std::vector<std::string>& values, const std::string& separator) {
  std::string joined;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) joined += separator;
    joined += values[i];
  }
  return joined;
}

std::vector<std::string> string_split(const std::string& text, const std::string& delimiter) {
  std::vector<std::string> parts;
  size_t start = 0;
  for (size_t end; (end = text.find(delimiter, start)) != std::string::npos; start = end + delimiter.size()) {
    parts.push_back(text.substr(start, end - start));
  }
  parts.push_back(text.substr(start));
  return parts;
}

std::string string_repeat(const std::string& text, size_t times) {
  std::string repeated;
  repeated.reserve(text.size() * times);
  while (times-- > 0) repeated += text;
  return repeated;
}

void string_replace_all(std::string& text, const std::string& search, const std::string& replacement) {
  if (search.empty()) return;
  for (size_t at = 0; (at = text.find(search, at)) != std::string::npos; at += replacement.size()) {
    text.replace(at, search.size(), replacement);
  }
}

std::vector<llama_token> common_tokenize(const llama_vocab* vocab, const std::string& text, bool add_special,
                                         bool parse_special) {
  const int32_t size = static_cast<int32_t>(text.size());
  std::vector<llama_token> tokens(text.size() + 2 * add_special);
  int32_t count = llama_tokenize(vocab, text.data(), size, tokens.data(), static_cast<int32_t>(tokens.size()),
                                 add_special, parse_special);
  if (count < 0) {
    tokens.resize(-count);
    count = llama_tokenize(vocab, text.data(), size, tokens.data(), static_cast<int32_t>(tokens.size()), add_special,
                           parse_special);
  }
  tokens.resize(count < 0 ? 0 : count);
  return tokens;
}

std::string common_token_to_piece(const llama_vocab* vocab, llama_token token, bool special) {
  std::string piece(32, '\0');
  int32_t size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, special);
  if (size < 0) {
    piece.resize(-size);
    size = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0, special);
  }
  piece.resize(size < 0 ? 0 : size);
  return piece;
}

// There is no llama_model here: templates are given as text.
const llama_vocab* llama_model_get_vocab(const llama_model*) { return nullptr; }
const char* llama_model_chat_template(const llama_model*, const char*) { return nullptr; }
// The route without Jinja; not offered.
int32_t llama_chat_apply_template(const char*, const llama_chat_message*, size_t, bool, char*, int32_t) { return -1; }

// llama.cpp's chat code logs advice to the developer of a template; what a user must know comes as an exception.
int common_log_get_verbosity_thold() { return -1; }
common_log* common_log_main() { return nullptr; }
void common_log_add(common_log*, ggml_log_level, const char*, ...) {}
