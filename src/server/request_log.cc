#include "server/request_log.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace trellis {
namespace {

LoggedRequest::Time Now() {
  return std::chrono::system_clock::now();
}

}  // namespace

// --- Record ---

RequestLog::Record::Record(Record&& other) noexcept
    : log_(std::exchange(other.log_, nullptr)), place_(other.place_) {}

RequestLog::Record::~Record() {
  if (log_ == nullptr) return;
  MutexLock lock(log_->mutex_);
  log_->unfinished_.erase(place_);
}

void RequestLog::Record::Reach(Stage stage, const GenerateTimings& so_far) {
  MutexLock lock(log_->mutex_);
  LoggedRequest& request = place_->request;
  request.seq = ++log_->last_seq_;
  request.timings = so_far;
  const bool is_prompt = stage == Stage::kPrompt;
  request.state = is_prompt ? LoggedRequest::State::kPrompt : LoggedRequest::State::kGenerating;
  (is_prompt ? request.admitted : request.first_token) = Now();
}

void RequestLog::Record::CountToken() {
  place_->num_tokens.fetch_add(1, std::memory_order_relaxed);
}

void RequestLog::Record::Finish(FinishReason reason, const GenerateTimings& timings) {
  RequestLog& log = *std::exchange(log_, nullptr);
  MutexLock lock(log.mutex_);
  LoggedRequest& request = place_->request;
  request.seq = ++log.last_seq_;
  request.timings = timings;
  request.state = LoggedRequest::State::kFinished;
  request.reason = reason;
  request.finished = Now();
  std::list<Place>& finished = log.finished_[request.owner];
  finished.splice(finished.end(), log.unfinished_, place_);
  if (finished.size() > kMaxFinished) finished.pop_front();
}

// --- RequestLog ---

RequestLog::Record RequestLog::Add(LoggedRequest request) {
  request.submitted = Now();
  MutexLock lock(mutex_);
  request.seq = ++last_seq_;
  unfinished_.emplace_back(std::move(request));
  return Record(*this, std::prev(unfinished_.end()));
}

RequestLog::Changes RequestLog::Since(
    uint64_t since, const std::function<bool(const LoggedRequest&)>& is_shown) const {
  Changes changes;
  std::vector<LoggedRequest>& shown = changes.requests;
  const auto before = [](const LoggedRequest& a, const LoggedRequest& b) { return a.seq < b.seq; };
  MutexLock lock(mutex_);
  changes.seq = last_seq_;
  for (const auto& [owner, places] : finished_) {
    for (auto place = places.rbegin(); place != places.rend() && place->request.seq > since;
         ++place) {
      if (is_shown(place->request)) shown.push_back(place->request);
    }
  }
  std::sort(shown.begin(), shown.end(), before);
  if (shown.size() > kMaxFinished) {
    shown.erase(shown.begin(), shown.end() - static_cast<ptrdiff_t>(kMaxFinished));
  }
  for (const Place& place : unfinished_) {
    if (!is_shown(place.request)) continue;
    shown.push_back(place.request);
    shown.back().timings.generated_tokens = place.num_tokens.load(std::memory_order_relaxed);
  }
  std::sort(shown.begin(), shown.end(), before);
  return changes;
}

}  // namespace trellis
