// LineReader: what a person types, line by line.
#pragma once

#include <memory>
#include <string>

namespace trellis {

class LineReader {
 public:
  enum class Outcome { kLine, kInterrupted /* Ctrl-C */, kEnd /* Ctrl-D, end of file */ };

  virtual ~LineReader() = default;
  // `line` is without its end.
  virtual Outcome Read(const std::string& prompt, std::string* line) = 0;
  // Whether a person is there, who sees prompts and colours.
  virtual bool is_terminal() const = 0;

  // With editing and history where standard input and output are terminals; else plain lines.
  // History is kept in $XDG_STATE_HOME/trellis/history, else ~/.local/state/trellis/history, for
  // its owner alone: the last 1,000 lines, but none that begin with a space. Where that cannot be
  // written it lasts as long as this.
  static std::unique_ptr<LineReader> Create();
};

}  // namespace trellis
