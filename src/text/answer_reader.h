// AnswerReader: the text of an answer as it grows -> what is said, what is thought, which tools are
// called, by the syntax of the model's template (llama.cpp's parsers).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace trellis_llama {
class AnswerSyntax;
struct ParsedAnswer;
}  // namespace trellis_llama

namespace trellis {

// What came since the last one.
struct AnswerDelta {
  std::string thoughts;
  std::string content;
  struct Call {
    size_t index = 0;  // of the answer's calls
    // Of a call's first delta only.
    std::string id = {}, name = {};
    std::string arguments = {};  // of JSON
  };
  std::vector<Call> calls;

  bool empty() const { return thoughts.empty() && content.empty() && calls.empty(); }
};

// One per answer; not shared by threads. The deltas of a call, one after the other, are its JSON.
class AnswerReader {
 public:
  // `syntax`: ChatPrompt's; null: all is content.
  explicit AnswerReader(std::shared_ptr<const trellis_llama::AnswerSyntax> syntax);
  ~AnswerReader();
  AnswerReader(AnswerReader&&) noexcept;

  void Add(std::string_view text) { text_ += text; }
  // What has come of it, in larger pieces the longer it is. COST: with a syntax that of all text so
  // far, so not after every token if nobody looks.
  AnswerDelta Read();
  // The rest, at the end. What is not written as it should be is content, as far as nothing of it
  // was given as something else.
  AnswerDelta Finish();

  size_t num_calls() const;
  const std::string& thoughts() const;

 private:
  AnswerDelta Grow(trellis_llama::ParsedAnswer parsed, bool is_whole);

  std::shared_ptr<const trellis_llama::AnswerSyntax> syntax_;
  std::string text_;     // all of it; without a syntax, what was not read yet
  size_t num_read_ = 0;  // bytes of it, when it was read last
  std::unique_ptr<trellis_llama::ParsedAnswer> given_;
};

}  // namespace trellis
