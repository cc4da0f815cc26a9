#include "line_reader.h"

#include <fcntl.h>
#include <histedit.h>
#include <termios.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iostream>

namespace trellis {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxHistory = 1000;

class PlainReader : public LineReader {
 public:
  Outcome Read(const std::string&, std::string* line) override {
    if (!std::getline(std::cin, *line)) return Outcome::kEnd;
    if (line->ends_with('\r')) line->pop_back();
    return Outcome::kLine;
  }
  bool is_terminal() const override { return false; }
};

// Empty where the environment names no place for it.
std::string HistoryPath() {
  const char* state = std::getenv("XDG_STATE_HOME");
  if (state != nullptr && *state == '/') return std::string(state) + "/trellis/history";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == 0) return "";
  return std::string(home) + "/.local/state/trellis/history";
}

// The lines of earlier sessions, and the file that this one's are appended to.
class HistoryFile {
 public:
  explicit HistoryFile(std::string path) : path_(std::move(path)) {
    std::ifstream file(path_);
    size_t num_lines = 0;
    for (std::string line; std::getline(file, line); num_lines++) {
      lines_.push_back(line);
      if (lines_.size() > kMaxHistory) lines_.pop_front();
    }
    if (num_lines > 2 * kMaxHistory) Shorten();
  }

  const std::deque<std::string>& lines() const { return lines_; }

  // Errors are not worth a person's attention.
  void Append(const std::string& line) const {
    std::error_code error;
    const fs::path folder = fs::path(path_).parent_path();
    if (fs::create_directories(folder, error)) fs::permissions(folder, fs::perms::owner_all, error);
    Write(path_, O_APPEND, line + "\n");
  }

 private:
  static void Write(const std::string& path, int flags, const std::string& text) {
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    if (fd < 0) return;
    (void)!write(fd, text.data(), text.size());
    close(fd);
  }

  void Shorten() const {
    std::string text;
    for (const std::string& line : lines_) text += line + "\n";
    const std::string shorter = path_ + ".new";
    Write(shorter, O_TRUNC, text);
    (void)std::rename(shorter.c_str(), path_.c_str());
  }

  const std::string path_;
  std::deque<std::string> lines_;
};

// While it lives, Ctrl-C and Ctrl-D are keys like others: they send no signal and end no input.
class InterruptKeyOff {
 public:
  InterruptKeyOff() {
    if (tcgetattr(STDIN_FILENO, &before_) != 0) return;
    struct termios changed = before_;
    changed.c_cc[VINTR] = _POSIX_VDISABLE;
    // libedit shows its prompt before it reads key by key; a Ctrl-D in between would be lost.
    changed.c_cc[VEOF] = _POSIX_VDISABLE;
    is_changed_ = tcsetattr(STDIN_FILENO, TCSADRAIN, &changed) == 0;
  }
  ~InterruptKeyOff() {
    if (is_changed_) tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  InterruptKeyOff(const InterruptKeyOff&) = delete;
  InterruptKeyOff& operator=(const InterruptKeyOff&) = delete;

 private:
  struct termios before_ = {};
  bool is_changed_ = false;
};

// libedit on the terminal. It is to discard the line on Ctrl-C, and binds that key to a signal of
// its own wherever it finds that the terminal does: so the terminal does not, whenever it looks.
class TerminalReader : public LineReader {
 public:
  TerminalReader() : file_(HistoryPath()) {
    // What is typed is UTF-8, also where nobody has set a locale.
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");
    const InterruptKeyOff off;
    history_ = history_init();
    HistEvent event;
    history(history_, &event, H_SETSIZE, static_cast<int>(kMaxHistory));
    for (const std::string& line : file_.lines()) history(history_, &event, H_ENTER, line.c_str());
    editor_ = el_init("trellis", stdin, stdout, stderr);
    el_set(editor_, EL_CLIENTDATA, this);
    el_set(editor_, EL_EDITOR, "emacs");
    el_set(editor_, EL_SIGNAL, 1);
    el_set(editor_, EL_HIST, history, history_);
    el_set(editor_, EL_PROMPT, &TerminalReader::Prompt);
    // Wide, as libedit would keep copies of narrow strings for ever.
    el_wset(editor_, EL_ADDFN, L"trellis-interrupt", L"Discard the line",
            &TerminalReader::OnInterrupt);
    Bind("^C", "trellis-interrupt");
    Bind("^R", "em-inc-search-prev");
    Bind("\\e[3~", "ed-delete-next-char");
    Bind("\\e[1;5C", "em-next-word");
    Bind("\\e[1;5D", "ed-prev-word");
  }
  ~TerminalReader() override {
    el_end(editor_);
    history_end(history_);
  }

  Outcome Read(const std::string& prompt, std::string* line) override {
    prompt_ = prompt;
    was_interrupted_ = false;
    const InterruptKeyOff off;
    int size = 0;
    const char* text = el_gets(editor_, &size);
    if (was_interrupted_) {
      std::fputs("^C\n", stdout);
      return Outcome::kInterrupted;
    }
    if (text == nullptr || size <= 0) {
      std::fputs("\n", stdout);
      return Outcome::kEnd;
    }
    line->assign(text, static_cast<size_t>(size));
    if (line->ends_with('\n')) line->pop_back();
    Remember(*line);
    return Outcome::kLine;
  }
  bool is_terminal() const override { return true; }

 private:
  void Bind(const char* key, const char* function) {
    el_set(editor_, EL_BIND, key, function, nullptr);
  }

  static TerminalReader* Of(EditLine* editor) {
    void* self = nullptr;
    el_get(editor, EL_CLIENTDATA, &self);
    return static_cast<TerminalReader*>(self);
  }
  static char* Prompt(EditLine* editor) { return Of(editor)->prompt_.data(); }
  static unsigned char OnInterrupt(EditLine* editor, wint_t) {
    Of(editor)->was_interrupted_ = true;
    return CC_EOF;
  }

  void Remember(const std::string& line) {
    if (line.empty() || line.starts_with(' ')) return;
    HistEvent event;
    history(history_, &event, H_ENTER, line.c_str());
    file_.Append(line);
  }

  HistoryFile file_;
  std::string prompt_;
  bool was_interrupted_ = false;
  History* history_ = nullptr;
  EditLine* editor_ = nullptr;
};

}  // namespace

std::unique_ptr<LineReader> LineReader::Create() {
  if (isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0) {
    return std::make_unique<TerminalReader>();
  }
  return std::make_unique<PlainReader>();
}

}  // namespace trellis
