#include "model/step_profile.h"

#include <algorithm>

namespace trellis {

void StepProfile::AddSerial(std::string_view name, const StepWork& work, Seconds wall) {
  Count(name, work).time += wall;
}

void StepProfile::AddForkJoin(std::string_view name, const StepWork& work, Clock::time_point begin,
                              Clock::time_point end) {
  Clock::time_point last = begin;
  for (const ThreadTimes& t : threads_) last = std::max(last, t.end);
  Seconds busy{}, idle{};
  for (const ThreadTimes& t : threads_) {
    busy += t.busy;
    idle += last - std::max(begin, t.end);
  }
  const auto num_threads = static_cast<double>(threads_.size());
  Part& part = Count(name, work);
  part.time += busy / num_threads;
  part.idle += idle / num_threads;
  part.fork_join += (end - begin) - (busy + idle) / num_threads;
}

StepProfile::Part& StepProfile::Count(std::string_view name, const StepWork& work) {
  auto part =
      std::find_if(parts_.begin(), parts_.end(), [name](const Part& p) { return p.name == name; });
  if (part == parts_.end()) {
    parts_.push_back({.name = std::string(name), .work = {.arithmetic = work.arithmetic}});
    part = parts_.end() - 1;
  }
  part->calls++;
  part->work.macs += work.macs;
  part->work.bytes += work.bytes;
  return *part;
}

}  // namespace trellis
