#include "engine/step_loop.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <fmt/format.h>

#include "base/check.h"
#include "os/compute_pool.h"
#include "sched/admission.h"

namespace trellis {
namespace {

using Clock = Request::Clock;

bool Contains(const std::vector<TokenId>& tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

StepLoop::StepLoop(Model& model, std::unique_ptr<PageCache> cache, const Options& options)
    : model_(model),
      cache_(std::move(cache)),
      options_(options),
      joining_(cache_->keeps_finished() ? Joining::kAllowed : Joining::kNever),
      vocab_size_(model.spec().vocab_size) {}

void StepLoop::Prepare() {
  const StepProfile::Timer timer(options_.profile, "tree: acquire, reserve, plan");
  ReserveRows();
  Admit();
  plan_ = Plan(MakeSnapshot(), options_.limits);
}

void StepLoop::Run() {
  if (plan_.rows.empty()) return;
  Forward(plan_);
  Commit(plan_);
  Sample(plan_);
  plan_ = {};
  stats_.steps_total++;
#if defined(TRELLIS_DEBUG_CHECKS)
  cache_->Validate();
#endif
}

size_t StepLoop::Deliver() {
  size_t num_finished = 0;
  std::vector<Event> events;
  events.swap(events_);
  for (Event& event : events) {
    if (const auto* progress = std::get_if<Progress>(&event.what)) {
      event.sink->OnPromptProgress(progress->done, progress->total);
    } else if (const auto* token = std::get_if<SampledToken>(&event.what)) {
      event.sink->OnToken(*token);
    } else {
      const Finish& finish = std::get<Finish>(event.what);
      event.sink->OnFinish(finish.reason, finish.status, finish.timings);
      num_finished++;
    }
  }
  return num_finished;
}

// --- Admission and memory ---

void StepLoop::Add(std::unique_ptr<Request> request) {
  const RequestId id = request->id;
  queue_.Add({.id = id,
              .scope = &request->params.scope,
              .tokens = request->tokens,
              .joining = request->params.cache_prompt ? joining_ : Joining::kNever});
  if (request->num_preemptions == 0) stats_.requests_total++;
  waiting_.emplace(id, std::move(request));
}

void StepLoop::Admit() {
  std::optional<RequestId> after;
  while (running_.size() < options_.limits.max_running) {
    const std::optional<RequestId> id = queue_.NextReady(after);
    if (!id) return;
    if (!TryAdmit(*waiting_.at(*id))) return;  // nobody overtakes who waits for memory
    after = id;
  }
}

// False if `request` has to wait for memory.
bool StepLoop::TryAdmit(Request& request) {
  const bool is_blocked = blocked_ && blocked_->id == request.id &&
                          cache_->AvailablePages() <= blocked_->available_pages;
  if (is_blocked && !running_.empty()) return false;
  if (!TakeLease(request)) {
    if (running_.empty()) {  // alone it has the whole cache: it knows more tokens than that holds
      End(request, FinishReason::kLength, Status::Ok());
      return true;
    }
    blocked_ = {request.id, cache_->AvailablePages()};
    return false;
  }
  const GenerateTimings before = request.timings;
  request.CountMatched(request.lease.num_rows());
  CountTotals(before, request.timings);
  if (request.admitted == Clock::time_point{}) {
    request.admitted = Clock::now();
    request.timings.queued = request.admitted - request.submitted;
    stats_.prompt_tokens_total += request.num_prompt;
    if (request.params.cache_prompt) {
      stats_.queried_tokens_total += request.num_prompt;
      stats_.hit_tokens_total += request.timings.cached_tokens;
    }
  }
  queue_.Start(request.id, request.lease.num_rows());
  const auto place =
      std::upper_bound(running_.begin(), running_.end(), request.id,
                       [](RequestId id, const auto& running) { return id < running->id; });
  running_.insert(place, std::move(waiting_.extract(request.id).mapped()));
  return true;
}

bool StepLoop::TakeLease(Request& request) {
  const std::span<const TokenId> known = request.tokens;
  // Who declines the cache still finds what it ran itself before it was preempted.
  Lease lease = cache_->Acquire(
      request.params.scope, request.params.cache_prompt ? known : known.first(request.num_counted));
  const AdmissionNeed need =
      NeedToAdmit({.num_tokens = known.size(),
                   .max_new_tokens = request.max_new_tokens - request.num_generated(),
                   .num_running = running_.size(),
                   .num_preemptions = request.num_preemptions});
  if (cache_->PagesNeeded(lease, need.num_rows) + need.spare_pages > cache_->AvailablePages()) {
    return false;
  }
  MissReport misses;
  const bool is_first = request.admitted == Request::Clock::time_point{};
  if (is_first && request.params.cache_prompt)
    misses = cache_->Explain(request.params.scope, known);
  if (!cache_->Reserve(lease, known.size()).ok()) return false;
  if (is_first) request.NoteMisses(std::move(misses));
  request.lease = std::move(lease);
  return true;
}

// Frames for every row that the step may write. Oldest first; when there are none left, the
// youngest goes back to the queue until there are.
void StepLoop::ReserveRows() {
  for (size_t i = 0; i < running_.size(); i++) {
    while (!cache_->Reserve(running_[i]->lease, running_[i]->num_known()).ok()) {
      Request& youngest = *running_.back();
      if (running_.size() == 1) {
        End(youngest, FinishReason::kLength, Status::Ok());  // the whole cache is full of it
      } else {
        Preempt(youngest);
      }
      if (i == running_.size()) return;  // it was the youngest itself
    }
  }
}

void StepLoop::Preempt(Request& request) {
  std::unique_ptr<Request> owned = TakeRunning(request);
  owned->num_preemptions++;
  stats_.preemptions_total++;
  Add(std::move(owned));
}

// Takes a running request out, its lease released: the committed rows stay until evicted.
std::unique_ptr<Request> StepLoop::TakeRunning(const Request& request) {
  const auto it = std::find_if(running_.begin(), running_.end(),
                               [&](const auto& other) { return other.get() == &request; });
  TRELLIS_CHECK(it != running_.end());
  std::unique_ptr<Request> owned = std::move(*it);
  running_.erase(it);
  owned->lease = Lease();
  queue_.Stop(owned->id);
  blocked_.reset();
  return owned;
}

// --- One step ---

Snapshot StepLoop::MakeSnapshot() const {
  Snapshot snapshot;
  snapshot.running.reserve(running_.size());
  for (const auto& request : running_) {
    snapshot.running.push_back({.id = request->id,
                                .num_tokens = request->num_known(),
                                .num_rows = request->lease.num_rows()});
  }
  return snapshot;
}

void StepLoop::Forward(const BatchPlan& plan) {
  batch_.clear();
  last_rows_.assign(plan.rows.size(), 0);
  size_t num_logits = 0;
  for (size_t i = 0; i < plan.rows.size(); i++) {
    const PlannedRows& rows = plan.rows[i];
    const Request& request = *running_[rows.index];
    last_rows_[i] = rows.num_rows - 1;
    const size_t wanted = rows.logits == Logits::kLastRow ? 1 : 0;
    num_logits += wanted;
    // Commit may swap pages for equal ones, so the table is read anew in every step.
    batch_.push_back({.pages = request.lease.pages(),
                      .tokens = std::span(request.tokens).subspan(rows.first_row, rows.num_rows),
                      .first_position = rows.first_row,
                      .first_unwritten = request.lease.num_rows(),
                      .logit_rows = std::span<const size_t>(&last_rows_[i], wanted)});
  }
  if (logits_.size() < num_logits * vocab_size_) logits_.resize(num_logits * vocab_size_);
  model_.Forward(batch_, logits_.data());
}

void StepLoop::Commit(const BatchPlan& plan) {
  const StepProfile::Timer timer(options_.profile, "tree: commit");
  for (const PlannedRows& rows : plan.rows) {
    Request& request = *running_[rows.index];
    const size_t resident = request.lease.num_rows();
    const size_t end = rows.first_row + rows.num_rows;
    if (end > resident) {
      cache_->Commit(request.lease, std::span(request.tokens).subspan(resident, end - resident));
    }
    if (rows.logits == Logits::kLastRow) {
      queue_.Stop(request.id);  // its prefill is complete
    } else {
      queue_.Progress(request.id, end);
    }
    const GenerateTimings before = request.timings;
    const bool more_of_prompt = request.num_counted < std::min(end, request.num_prompt);
    request.CountRun(rows.first_row, rows.num_rows);
    CountTotals(before, request.timings);
    if (more_of_prompt) {
      events_.push_back(
          {request.sink, Progress{std::min(end, request.num_prompt), request.num_prompt}});
    }
  }
}

void StepLoop::Sample(const BatchPlan& plan) {
  const StepProfile::Timer timer(options_.profile, "sampling");
  sampled_.clear();
  for (const PlannedRows& rows : plan.rows) {
    if (rows.logits == Logits::kNone) continue;
    const std::span<const float> logits(&logits_[sampled_.size() * vocab_size_], vocab_size_);
    sampled_.push_back({.request = running_[rows.index].get(), .logits = logits});
  }
  // A row costs a pass or more over the vocabulary: milliseconds where that is 262k tokens.
  if (options_.pool != nullptr && sampled_.size() > 1) {
    options_.pool->ParallelFor(sampled_.size(), [&](size_t i, size_t) { SampleRow(sampled_[i]); });
  } else {
    for (LogitRow& row : sampled_) SampleRow(row);
  }
  for (LogitRow& row : sampled_) Accept(row);
}

// Whatever goes wrong here is this request's alone.
void StepLoop::SampleRow(LogitRow& row) const {
  Request& request = *row.request;
  try {
    row.token = request.sampler.Sample(row.logits, request.tokens, request.num_generated());
  } catch (const std::exception& error) {
    row.status = Status(StatusCode::kInternal, fmt::format("sampling failed: {}", error.what()));
    return;
  }
  if (row.token.token < 0 || static_cast<size_t>(row.token.token) >= vocab_size_) {
    row.status = Status(
        StatusCode::kInternal,
        fmt::format("sampling gave token {} of a vocabulary of {}", row.token.token, vocab_size_));
  }
}

void StepLoop::Accept(LogitRow& row) {
  Request& request = *row.request;
  if (!row.status.ok()) return End(request, FinishReason::kError, std::move(row.status));
  if (request.num_generated() == 0) {
    request.first_token = Clock::now();
    request.timings.prompt = request.first_token - request.admitted;
  }
  request.timings.generated_tokens++;
  stats_.generated_tokens_total++;
  if (Contains(request.params.end_tokens, row.token.token)) {
    return End(request, FinishReason::kStop, Status::Ok());
  }
  request.tokens.push_back(row.token.token);
  events_.push_back({request.sink, std::move(row.token)});
  if (request.num_generated() == request.max_new_tokens) {
    End(request, FinishReason::kLength, Status::Ok());
  }
}

// --- Ends ---

void StepLoop::End(Request& request, FinishReason reason, Status status) {
  std::unique_ptr<Request> owned;
  if (const auto waiting = waiting_.extract(request.id); !waiting.empty()) {
    owned = std::move(waiting.mapped());
    queue_.Remove(owned->id);
  } else {
    owned = TakeRunning(request);
  }
  const Clock::time_point now = Clock::now();
  if (owned->num_generated() > 0) {
    owned->timings.predicted = now - owned->first_token;
  } else if (owned->admitted != Clock::time_point{}) {
    owned->timings.prompt = now - owned->admitted;
  } else {
    owned->timings.queued = now - owned->submitted;
  }
  if (owned->admitted != Clock::time_point{}) {
    const GenerateTimings& t = owned->timings;
    stats_.abandoned_tokens_total += t.prompt_tokens - t.cached_tokens - t.computed_tokens;
  }
  switch (reason) {
    case FinishReason::kLength:
      stats_.length_total++;
      [[fallthrough]];
    case FinishReason::kStop:
      stats_.finished_total++;
      break;
    case FinishReason::kCancelled:
      stats_.cancelled_total++;
      break;
    case FinishReason::kError:
      stats_.failed_total++;
      break;
  }
  owned->timings.divergence = std::move(owned->divergence);
  events_.push_back({owned->sink, Finish{reason, std::move(status), std::move(owned->timings)}});
}

void StepLoop::EndEarly(RequestId id, FinishReason reason) {
  if (const auto it = waiting_.find(id); it != waiting_.end()) {
    return End(*it->second, reason, Status::Ok());
  }
  for (const auto& request : running_) {
    if (request->id == id) return End(*request, reason, Status::Ok());
  }
}

void StepLoop::CancelAll() {
  while (!waiting_.empty()) EndEarly(waiting_.begin()->first, FinishReason::kCancelled);
  while (!running_.empty()) EndEarly(running_.back()->id, FinishReason::kCancelled);
}

void StepLoop::ResetCache() {
  cache_->Reset();
  blocked_.reset();
  // What runs now computes pages that nobody will find any more.
  for (const auto& request : running_) queue_.Stop(request->id);
}

// --- Counts ---

void Request::CountMatched(size_t num_rows) {
  // The last known token is run in any case, for its logits.
  const size_t found = std::min(num_rows, num_known() - 1);
  if (found <= num_counted) return;
  timings.cached_tokens += std::min(found, num_prompt) - std::min(num_counted, num_prompt);
  num_counted = found;
}

void Request::NoteMisses(MissReport report) {
  if (!params.cache_prompt) {
    other_cause = MissCause::kDisabled;
    return;
  }
  evicted_begin = report.matched;
  evicted_end = report.matched + report.evicted;
  other_cause = report.rest_cause;
  if (report.rest == 0 || report.rest_cause != MissCause::kDiverged) return;
  const auto from = tokens.begin() + static_cast<ptrdiff_t>(report.matched);
  const size_t shown = std::min(report.rest, report.instead.size());
  divergence = {.position = report.matched,
                .prompt = {from, from + static_cast<ptrdiff_t>(shown)},
                .cached = std::move(report.instead)};
}

void Request::CountRun(size_t first, size_t num_rows) {
  const size_t end = first + num_rows;
  const size_t first_new = std::clamp(num_counted, first, end);
  timings.recomputed_tokens += first_new - first;
  const size_t begin_computed = std::min(first_new, num_prompt),
               end_computed = std::min(end, num_prompt);
  timings.computed_tokens += end_computed - begin_computed;
  const size_t num_evicted = std::clamp(evicted_end, begin_computed, end_computed) -
                             std::clamp(evicted_begin, begin_computed, end_computed);
  timings.missed[MissCause::kEvicted] += num_evicted;
  timings.missed[other_cause] += end_computed - begin_computed - num_evicted;
  num_counted = std::max(num_counted, end);
}

void StepLoop::CountTotals(const GenerateTimings& before, const GenerateTimings& after) {
  stats_.cached_tokens_total += after.cached_tokens - before.cached_tokens;
  stats_.computed_tokens_total += after.computed_tokens - before.computed_tokens;
  for (size_t i = 0; i < kNumMissCauses; i++)
    stats_.missed_total.tokens[i] += after.missed.tokens[i] - before.missed.tokens[i];
  stats_.recomputed_tokens_total += after.recomputed_tokens - before.recomputed_tokens;
}

EngineStats StepLoop::Stats() const {
  EngineStats stats = stats_;
  stats.waiting = waiting_.size();
  stats.running = running_.size();
  return stats;
}

}  // namespace trellis
