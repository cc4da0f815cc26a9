#include "server/read_timer.h"

namespace trellis {

// Shared with the handlers, which may run once more after the timer has ended.
struct ReadTimer::State : std::enable_shared_from_this<State> {
  explicit State(Stream& s) : stream(&s), timer(s.get_executor()) {}

  void Wait() {
    timer.expires_at(time);
    timer.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      // One that had come before it was set anew counts no more.
      if (error || self->stream == nullptr || std::chrono::steady_clock::now() < self->time) return;
      self->is_over = true;
      self->stream->cancel();
    });
  }

  Stream* stream;  // null: the timer has ended
  net::steady_timer timer;
  Time time{};
  bool is_over = false;
};

ReadTimer::ReadTimer(Stream& stream) : state_(std::make_shared<State>(stream)) {
  stream.expires_never();
}

ReadTimer::~ReadTimer() {
  state_->stream = nullptr;
  state_->timer.cancel();
}

void ReadTimer::Set(Time time) {
  state_->time = time;
  state_->is_over = false;
  state_->Wait();
}

bool ReadTimer::is_over() const {
  return state_->is_over;
}

}  // namespace trellis
