// ReadTimer: how long a connection waits for its client's bytes. Internal to server/.
#pragma once

#include <memory>

#include "server/session.h"

namespace trellis {

// When the time has come it ends what the stream waits for, and leaves it open, so that the client
// can be told; the stream's own timer, which it turns off, would close it.
// On the stream's strand, no longer than the stream.
class ReadTimer {
 public:
  using Time = net::steady_timer::time_point;

  explicit ReadTimer(Stream& stream);
  ~ReadTimer();
  ReadTimer(const ReadTimer&) = delete;
  ReadTimer& operator=(const ReadTimer&) = delete;

  // From now on that is the time.
  void Set(Time time);
  // Whether it has come, since it was set.
  bool is_over() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace trellis
