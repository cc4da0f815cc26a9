// std::regex, by which llama.cpp splits the text of some vocabularies into words, takes stack for
// each character of a match: a word of a megabyte would end the process. Our patch to
// src/unicode.cpp calls what is here.
#pragma once

#include <cstddef>
#include <vector>

namespace trellis_llama {

// `pieces` are the lengths that `text` is cut into, in characters. Cuts runs of more than kMaxRun
// characters that are all white space, or none of them, which no text that means anything has.
// ASCII decides: the caller has mapped other white space to it.
template <typename Text>
std::vector<size_t> CutLongRuns(const Text& text, const std::vector<size_t>& pieces) {
  constexpr size_t kMaxRun = 4096;
  const auto is_space = [&text](size_t i) {
    return text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r');
  };
  std::vector<size_t> cut;
  cut.reserve(pieces.size());
  size_t start = 0;
  for (const size_t piece : pieces) {
    const size_t end = start + piece;
    size_t run = 0;
    for (size_t i = start; i < end; ++i) {
      run = run > 0 && is_space(i) == is_space(i - 1) ? run + 1 : 1;
      if (run <= kMaxRun) continue;
      cut.push_back(i - start);
      start = i;
      run = 1;
    }
    cut.push_back(end - start);
    start = end;
  }
  return cut;
}

}  // namespace trellis_llama
