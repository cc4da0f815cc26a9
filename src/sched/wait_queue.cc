#include "sched/wait_queue.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/common_prefix.h"

namespace trellis {

void WaitQueue::Compare(const Prefill& prefill, Waiting& waiting) {
  const Entry& a = prefill.entry;
  const Entry& b = waiting.entry;
  if (a.joining == Joining::kNever || b.joining == Joining::kNever || *a.scope != *b.scope) return;
  // The last token is run in any case, so sharing it saves nothing.
  const size_t most = std::min(a.tokens.size(), b.tokens.size() - 1);
  // Worth waiting for only if they share the very next row that the prefill computes.
  const size_t next = prefill.num_rows;
  if (next >= most || a.tokens[next] != b.tokens[next]) return;
  num_comparisons_++;
  const size_t shared = CommonPrefix(a.tokens.first(most), b.tokens.first(most));
  if (shared > next) waiting.needs.push_back({a.id, shared});
}

void WaitQueue::Add(const Entry& entry) {
  TRELLIS_CHECK(entry.scope != nullptr && !entry.tokens.empty() && !prefills_.contains(entry.id));
  const auto [it, added] = waiting_.try_emplace(entry.id, Waiting{entry, {}});
  TRELLIS_CHECK(added);
  for (const auto& [id, prefill] : prefills_) Compare(prefill, it->second);
}

void WaitQueue::Remove(RequestId id) {
  TRELLIS_CHECK(waiting_.erase(id) == 1);
}

std::vector<WaitQueue::ReadyView> WaitQueue::Ready() const {
  std::vector<ReadyView> ready;
  for (const auto& [id, waiting] : waiting_) {
    if (waiting.needs.empty()) ready.push_back({id, waiting.entry.num_cached});
  }
  return ready;
}

std::vector<WaitQueue::WaitView> WaitQueue::Waits() const {
  std::vector<WaitView> waits;
  for (const auto& [id, waiting] : waiting_) {
    for (const Need& need : waiting.needs) waits.push_back({id, need.id});
  }
  return waits;
}

void WaitQueue::Correct(RequestId id, size_t num_cached) {
  waiting_.at(id).entry.num_cached = num_cached;
}

void WaitQueue::Start(RequestId id, size_t num_rows) {
  const auto it = waiting_.find(id);
  TRELLIS_CHECK(it != waiting_.end());
  const Prefill prefill{it->second.entry, num_rows};
  waiting_.erase(it);
  for (auto& [other, waiting] : waiting_) Compare(prefill, waiting);
  prefills_.emplace(id, prefill);
}

bool WaitQueue::Progress(RequestId id, size_t num_rows) {
  const auto it = prefills_.find(id);
  if (it == prefills_.end()) return false;
  TRELLIS_CHECK(num_rows >= it->second.num_rows);
  it->second.num_rows = num_rows;
  bool anybody = false;
  for (auto& entry : waiting_) {
    Waiting& waiting = entry.second;
    const size_t before = waiting.needs.size();
    std::erase_if(waiting.needs, [&](const Need& need) {
      if (need.id != id || need.num_rows > num_rows) return false;
      waiting.entry.num_cached = std::max(waiting.entry.num_cached, need.num_rows);
      return true;
    });
    anybody |= before > 0 && waiting.needs.empty();
  }
  return anybody;
}

bool WaitQueue::Stop(RequestId id) {
  if (prefills_.erase(id) == 0) return false;
  bool anybody = false;
  for (auto& entry : waiting_) {
    Waiting& waiting = entry.second;
    const size_t before = waiting.needs.size();
    std::erase_if(waiting.needs, [&](const Need& need) { return need.id == id; });
    anybody |= before > 0 && waiting.needs.empty();
  }
  return anybody;
}

}  // namespace trellis
