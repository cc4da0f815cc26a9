#include "interrupt.h"

#include <csignal>

namespace trellis {
namespace {

volatile std::sig_atomic_t caught = 0;
struct sigaction before;

}  // namespace

InterruptCatcher::InterruptCatcher(Second second) {
  caught = 0;
  struct sigaction action = {};
  action.sa_handler = [](int) { caught = 1; };
  action.sa_flags = SA_RESTART;
  if (second == Second::kEndsTheProcess) action.sa_flags |= static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, &before);
}

InterruptCatcher::~InterruptCatcher() {
  sigaction(SIGINT, &before, nullptr);
}

bool InterruptCatcher::HasCaught() {
  return caught != 0;
}

}  // namespace trellis
