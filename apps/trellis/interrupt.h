// Ctrl-C (SIGINT) as something to ask about.
#pragma once

namespace trellis {

// While it lives, the signal is noted and does not end the process. One at a time.
class InterruptCatcher {
 public:
  enum class Second { kEndsTheProcess, kIsNotedToo };  // what the next one does

  explicit InterruptCatcher(Second second);
  ~InterruptCatcher();  // what was before holds again
  InterruptCatcher(const InterruptCatcher&) = delete;
  InterruptCatcher& operator=(const InterruptCatcher&) = delete;

  // Whether one came since the last catcher was made.
  static bool HasCaught();
};

}  // namespace trellis
