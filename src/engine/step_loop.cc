#include "engine/step_loop.h"

#include <algorithm>
#include <cmath>
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

// Who declines the cache still finds what it ran itself before it was preempted.
std::span<const TokenId> FindableTokens(const Request& request) {
  const std::span<const TokenId> known = request.tokens;
  return request.params.cache_prompt ? known : known.first(request.num_counted);
}

size_t MostPinned(const PageCache& cache, double share) {
  // Where nothing is kept there is nothing to pin.
  if (!cache.keeps_finished()) return 0;
  return static_cast<size_t>(share * static_cast<double>(cache.Stats().capacity));
}

// COST: a small part of what sampling costs.
bool HasNan(std::span<const float> logits) {
  bool found = false;
  for (const float logit : logits) found |= logit != logit;
  return found;
}

Status NoNumbers() {
  return Status(StatusCode::kInternal,
                "the model's output is not a number (NaN): its file may be broken; check it by "
                "pulling it again");
}

// Requests that have a row for their next token only.
size_t NumDecoding(const BatchPlan& plan) {
  return static_cast<size_t>(std::count_if(
      plan.rows.begin(), plan.rows.end(),
      [](const auto& rows) { return rows.num_rows == 1 && rows.logits == Logits::kLastRow; }));
}

}  // namespace

StepLoop::StepLoop(Model& model, std::unique_ptr<PageCache> cache, const Options& options)
    : model_(model),
      cache_(std::move(cache)),
      options_(options),
      joining_(cache_->keeps_finished() ? Joining::kAllowed : Joining::kNever),
      vocab_size_(model.spec().vocab_size),
      pins_(*cache_, MostPinned(*cache_, options.max_pinned_share)),
      shares_(2 * kMostLag * options.limits.quantum.tokens),
      chunk_size_({.first = options.limits.mixed_step_tokens,
                   .least = std::min(kLeastChunk, options.limits.step_tokens),
                   .most = options.limits.step_tokens,
                   .target = options.max_inter_token}) {}

void StepLoop::Prepare() {
  const StepProfile::Timer timer(options_.profile, "tree: acquire, reserve, plan");
  step_began_ = Clock::now();
  pins_.Expire(step_began_);
  ReserveRows();
  Admit();
  Limits limits = options_.limits;
  limits.mixed_step_tokens = chunk_size_.rows();
  plan_ = Plan(MakeSnapshot(), limits);
}

void StepLoop::Run() {
  if (plan_.rows.empty()) return;
  const size_t num_decoding = NumDecoding(plan_), num_rows = plan_.num_rows;
  Forward(plan_);
  Commit(plan_);
  Sample(plan_);
  plan_ = {};
  stats_.steps_total++;
  chunk_size_.Observe({.num_decoding = num_decoding,
                       .num_prompt = num_rows - num_decoding,
                       .took = Clock::now() - step_began_});
#if defined(TRELLIS_DEBUG_CHECKS)
  cache_->Validate();
#endif
}

size_t StepLoop::Deliver() {
  size_t num_finished = 0;
  std::vector<Event> events;
  events.swap(events_);
  for (Event& event : events) {
    if (const auto* progress = std::get_if<PromptProgress>(&event.what)) {
      event.sink->OnPromptProgress(*progress);
    } else if (const auto* reached = std::get_if<Reached>(&event.what)) {
      event.sink->OnStage(reached->stage, reached->so_far);
    } else if (const auto* token = std::get_if<SampledToken>(&event.what)) {
      event.sink->OnToken(*token);
    } else if (auto* embedding = std::get_if<std::vector<float>>(&event.what)) {
      event.sink->OnEmbedding(std::move(*embedding));
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
  stuck_.reset();
  if (request->num_preemptions == 0) {
    stats_.requests_total++;
    request->member = shares_.Enter(request->params.client);
    request->session_service = request->member.session_service();
  }
  queue_.Add({.id = id,
              .scope = &request->params.scope,
              .tokens = request->tokens,
              .joining = request->params.cache_prompt ? joining_ : Joining::kNever,
              .num_cached = NumCached(*request)});
  waiting_of_tenant_[request->params.client.tenant]++;
  waiting_.emplace(id, std::move(request));
}

// What a lease would match now.
size_t StepLoop::NumCached(const Request& request) const {
  return cache_->MatchLength(request.params.scope, FindableTokens(request));
}

void StepLoop::Admit() {
  if (IsStuck()) return;
  stuck_.reset();
  while (Request* request = NextToAdmit()) {
    while (!TryAdmit(*request)) {
      if (MakeRoomFor(*request)) continue;
      stuck_ = {cache_->AvailablePages(), num_charged_};
      return;  // nobody overtakes who waits for a place
    }
  }
}

bool StepLoop::IsStuck() const {
  return stuck_ && cache_->AvailablePages() <= stuck_->available_pages &&
         num_charged_ < stuck_->num_charged + static_cast<uint64_t>(options_.limits.quantum.tokens);
}

// Null if nobody is ready.
Request* StepLoop::NextToAdmit() {
  std::vector<Claim> claims;
  for (const WaitQueue::ReadyView& ready : queue_.Ready()) {
    claims.push_back(MakeClaim(*waiting_.at(ready.id), ready.num_cached));
  }
  while (!claims.empty()) {
    Claim& first = claims[First(claims, options_.limits.quantum)];
    Request& request = *waiting_.at(first.id);
    if (!HasPlace() || IsBlocked(request)) return &request;
    // What was cached when it came may be gone.
    const size_t num_cached = NumCached(request);
    if (num_cached >= first.locality) return &request;
    first.locality = num_cached;
    queue_.Correct(first.id, num_cached);
  }
  return nullptr;
}

bool StepLoop::IsBlocked(const Request& request) const {
  return !running_.empty() && blocked_ && blocked_->id == request.id &&
         cache_->AvailablePages() <= blocked_->available_pages;
}

// Preempts one request, if there is one that has to make room for this. False: there is none.
bool StepLoop::MakeRoomFor(const Request& request) {
  const std::optional<size_t> index =
      WhoMakesRoom(MakeClaim(request, 0), RunningClaims(), options_.limits.quantum);
  if (index) Preempt(*running_[*index]);
  return index.has_value();
}

// False if `request` has to wait for a place or for memory.
bool StepLoop::TryAdmit(Request& request) {
  if (!HasPlace() || IsBlocked(request)) return false;
  while (!TakeLease(request)) {
    if (!running_.empty()) {
      blocked_ = {request.id, cache_->AvailablePages()};
      return false;
    }
    // Alone it has the whole cache, but for what is pinned; unless it knows more than that holds.
    if (pins_.ReleaseOne()) continue;
    End(request, FinishReason::kLength, Status::Ok());
    return true;
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
    Reach(request, Stage::kPrompt);
  }
  queue_.Start(request.id, request.lease.num_rows());
  const auto place =
      std::upper_bound(running_.begin(), running_.end(), request.id,
                       [](RequestId id, const auto& running) { return id < running->id; });
  running_.insert(place, TakeWaiting(request));
  return true;
}

bool StepLoop::TakeLease(Request& request) {
  const std::span<const TokenId> known = request.tokens;
  Lease lease = cache_->Acquire(request.params.scope, FindableTokens(request));
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
  size_t in_wider_scope = 0;
  if (is_first && request.params.cache_prompt) {
    misses = cache_->Explain(request.params.scope, known);
    if (const auto& wider = request.params.wider_scope) {
      in_wider_scope = cache_->MatchLength(*wider, known);
    }
  }
  if (!cache_->Reserve(lease, known.size()).ok()) return false;
  if (is_first) request.NoteMisses(std::move(misses), in_wider_scope);
  cache_->SetPriority(lease, request.params.cache_priority.value_or(request.params.priority));
  request.lease = std::move(lease);
  return true;
}

// Frames for every row that the step may write. When there are none left, somebody goes back to the
// queue until there are.
void StepLoop::ReserveRows() {
  for (size_t i = 0; i < running_.size();) {
    if (cache_->Reserve(running_[i]->lease, running_[i]->num_known()).ok()) {
      i++;
    } else if (running_.size() == 1) {
      if (pins_.ReleaseOne()) continue;
      End(*running_[0], FinishReason::kLength, Status::Ok());  // the whole cache is full of it
    } else {
      const size_t index = WhoIsPreempted(RunningClaims(), options_.limits.quantum);
      Preempt(*running_[index]);
      if (index < i) i--;
    }
  }
}

void StepLoop::Preempt(Request& request) {
  std::unique_ptr<Request> owned = TakeRunning(request);
  owned->num_preemptions++;
  stats_.preemptions_total++;
  Add(std::move(owned));
}

std::unique_ptr<Request> StepLoop::TakeWaiting(const Request& request) {
  const auto count = waiting_of_tenant_.find(request.params.client.tenant);
  if (--count->second == 0) waiting_of_tenant_.erase(count);
  return std::move(waiting_.extract(request.id).mapped());
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
  stuck_.reset();
  return owned;
}

// --- One step ---

Claim StepLoop::MakeClaim(const Request& request, size_t locality) const {
  const uint64_t overtaken =
      request.member.session_service() - request.session_service - request.num_charged;
  const auto patience = static_cast<uint64_t>(kMostLag * options_.limits.quantum.tokens);
  return {
      .id = request.id,
      .standing = {.tenant = request.member.tenant(),
                   .tenant_lead = shares_.TenantLead(request.member),
                   .session_lead = shares_.SessionLead(request.member),
                   .priority = request.params.priority,
                   .due = overtaken >= patience ? Standing::Due::kOverdue : Standing::Due::kInTime,
                   .num_preemptions = request.num_preemptions},
      .locality = locality};
}

std::vector<Claim> StepLoop::RunningClaims() const {
  std::vector<Claim> claims;
  for (const auto& request : running_) claims.push_back(MakeClaim(*request, 0));
  return claims;
}

Snapshot StepLoop::MakeSnapshot() const {
  Snapshot snapshot;
  snapshot.running.reserve(running_.size());
  for (const auto& request : running_) {
    snapshot.running.push_back({.id = request->id,
                                .num_tokens = request->num_known(),
                                .num_rows = request->lease.num_rows(),
                                .standing = MakeClaim(*request, 0).standing});
  }
  // A prefill that others wait for is as urgent as they are.
  for (const WaitQueue::WaitView& wait : queue_.Waits()) {
    const auto prefill =
        std::find_if(snapshot.running.begin(), snapshot.running.end(),
                     [&](const RunningView& running) { return running.id == wait.prefill; });
    TRELLIS_CHECK(prefill != snapshot.running.end());
    prefill->standing =
        MoreUrgent(prefill->standing, MakeClaim(*waiting_.at(wait.waiting), 0).standing,
                   options_.limits.quantum);
  }
  return snapshot;
}

SequenceRows StepLoop::RowsFor(const PlannedRows& planned) {
  Request& request = *running_[planned.index];
  // Commit may swap pages for equal ones, so the table is read anew in every step.
  SequenceRows rows{
      .pages = request.lease.pages(),
      .tokens = std::span(request.tokens).subspan(planned.first_row, planned.num_rows),
      .first_position = planned.first_row,
      .first_unwritten = request.lease.num_rows(),
      .logit_rows = {}};
  const std::span<const size_t> all = std::span(row_numbers_).first(planned.num_rows);
  if (planned.logits == Logits::kLastRow) rows.logit_rows = all.last(1);
  if (request.params.pooling) {
    request.hidden_sum.resize(model_.spec().embedding_length);
    rows.hidden_sum = request.hidden_sum;
    // A row that is run again, after a preemption, is there already.
    const size_t first = std::max(planned.first_row, request.num_summed);
    const size_t end = planned.first_row + planned.num_rows;
    if (request.params.pooling == Pooling::kMean)
      rows.logit_rows = all.last(end - std::min(first, end));
  }
  return rows;
}

void StepLoop::Forward(const BatchPlan& plan) {
  batch_.clear();
  size_t num_logits = 0;
  for (const PlannedRows& planned : plan.rows) {
    while (row_numbers_.size() < planned.num_rows) row_numbers_.push_back(row_numbers_.size());
  }
  for (const PlannedRows& planned : plan.rows) {
    batch_.push_back(RowsFor(planned));
    if (batch_.back().hidden_sum.empty()) num_logits += batch_.back().logit_rows.size();
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
    request.num_summed = std::max(request.num_summed, end);
    const bool is_complete = rows.logits == Logits::kLastRow;
    const bool anybody_ready =
        is_complete ? queue_.Stop(request.id) : queue_.Progress(request.id, end);
    if (anybody_ready) stuck_.reset();
    shares_.Charge(request.member, rows.num_rows);
    request.num_charged += rows.num_rows;
    num_charged_ += rows.num_rows;
    const GenerateTimings before = request.timings;
    const bool more_of_prompt = request.num_counted < std::min(end, request.num_prompt);
    request.CountRun(rows.first_row, rows.num_rows);
    CountTotals(before, request.timings);
    if (more_of_prompt && request.num_counted >= request.num_prompt) Pin(request);
    if (more_of_prompt) {
      events_.push_back({request.sink, PromptProgress{.total = request.num_prompt,
                                                      .cached = request.timings.cached_tokens,
                                                      .done = std::min(end, request.num_prompt)}});
    }
  }
}

// Its prompt is computed: what of it is to stay for a time does so from now on.
void StepLoop::Pin(Request& request) {
  for (const Retention& retention : request.params.retentions) {
    const auto prompt = std::span<const TokenId>(request.tokens).first(request.num_prompt);
    const PinTable::Added added =
        pins_.Add(request.params.client.tenant, request.params.scope,
                  prompt.first(std::min(retention.num_tokens, prompt.size())),
                  step_began_ + retention.lifetime);
    if (added.num_tokens > request.timings.pin.num_tokens) request.timings.pin = added;
  }
}

void StepLoop::Sample(const BatchPlan& plan) {
  const StepProfile::Timer timer(options_.profile, "sampling");
  sampled_.clear();
  const float* logits = logits_.data();
  for (const PlannedRows& rows : plan.rows) {
    if (rows.logits == Logits::kNone) continue;
    LogitRow& row = sampled_.emplace_back();
    row.request = running_[rows.index].get();
    if (row.request->params.pooling) continue;
    row.logits = {logits, vocab_size_};
    logits += vocab_size_;
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
  if (request.params.pooling) return;
  if (HasNan(row.logits)) {
    row.status = NoNumbers();
    return;
  }
  try {
    row.token = request.sampler.Sample(row.logits, request.tokens, request.num_generated());
    if (request.params.constraint != nullptr) row.status = KeepToConstraint(row);
  } catch (const std::exception& error) {
    row.status = Status(StatusCode::kInternal, fmt::format("sampling failed: {}", error.what()));
    return;
  }
  if (!row.status.ok()) return;
  if (row.token.token < 0 || static_cast<size_t>(row.token.token) >= vocab_size_) {
    row.status = Status(
        StatusCode::kInternal,
        fmt::format("sampling gave token {} of a vocabulary of {}", row.token.token, vocab_size_));
  }
}

// Takes another token if the one that was sampled may not be.
Status StepLoop::KeepToConstraint(LogitRow& row) const {
  Request& request = *row.request;
  Constraint& constraint = *request.params.constraint;
  TRELLIS_ASSIGN_OR_RETURN(bool is_allowed, constraint.Allows(row.token.token));
  if (!is_allowed) {
    static thread_local std::vector<float> allowed;
    allowed.assign(row.logits.begin(), row.logits.end());
    TRELLIS_RETURN_IF_ERROR(constraint.Ban(allowed));
    row.token =
        request.sampler.SampleAgain(row.logits, allowed, request.tokens, request.num_generated());
    TRELLIS_ASSIGN_OR_RETURN(is_allowed, constraint.Allows(row.token.token));
    if (!is_allowed) {
      return Status(StatusCode::kInvalidArgument,
                    "no token that may be chosen goes on as the grammar wants");
    }
  }
  return constraint.Accept(row.token.token);
}

void StepLoop::Accept(LogitRow& row) {
  Request& request = *row.request;
  if (!row.status.ok()) return End(request, FinishReason::kError, std::move(row.status));
  if (request.params.pooling) return FinishEmbedding(request);
  if (request.num_generated() == 0) {
    request.first_token = Clock::now();
    request.timings.prompt = request.first_token - request.admitted;
  }
  request.timings.generated_tokens++;
  stats_.generated_tokens_total++;
  if (request.num_generated() == 1) Reach(request, Stage::kGenerating);
  if (Contains(request.params.end_tokens, row.token.token)) {
    return End(request, FinishReason::kStop, Status::Ok());
  }
  request.tokens.push_back(row.token.token);
  events_.push_back({request.sink, std::move(row.token)});
  if (request.num_generated() == request.max_new_tokens) {
    End(request, FinishReason::kLength, Status::Ok());
  }
}

void StepLoop::FinishEmbedding(Request& request) {
  std::vector<float>& embedding = request.hidden_sum;
  double squares = 0;
  for (const float x : embedding) squares += static_cast<double>(x) * x;
  if (!std::isfinite(squares)) return End(request, FinishReason::kError, NoNumbers());
  // The mean has the sum's direction.
  const double scale = squares > 0 ? 1 / std::sqrt(squares) : 0;
  for (float& x : embedding) x = static_cast<float>(x * scale);
  events_.push_back({request.sink, std::move(embedding)});
  End(request, FinishReason::kStop, Status::Ok());
}

void StepLoop::Reach(Request& request, Stage stage) {
  request.timings.tree_node = request.lease.node_id();
  events_.push_back({request.sink, Reached{stage, request.timings}});
}

// --- Ends ---

void StepLoop::End(Request& request, FinishReason reason, Status status) {
  std::unique_ptr<Request> owned;
  if (waiting_.contains(request.id)) {
    owned = TakeWaiting(request);
    queue_.Remove(owned->id);
    stuck_.reset();
  } else {
    request.timings.tree_node = request.lease.node_id();
    if (request.IsAnswerDropped()) {
      cache_->Release(std::move(request.lease), request.num_prompt);
    }
    owned = TakeRunning(request);
  }
  shares_.Leave(owned->member);
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

size_t StepLoop::Unpin(const std::string& tenant, std::optional<PinId> id) {
  if (!id) return pins_.RemoveAll(tenant);
  return pins_.Remove(*id, tenant) ? 1 : 0;
}

void StepLoop::ResetCache() {
  pins_.Clear();
  cache_->Reset();
  blocked_.reset();
  stuck_.reset();
  // What runs now computes pages that nobody will find any more.
  for (const auto& request : running_) queue_.Stop(request->id);
}

// --- Counts ---

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
  stats.pins = pins_.size();
  stats.pinned_pages = pins_.num_pages();
  stats.max_pinned_pages = pins_.max_pages();
  stats.clients = shares_.num_sessions();
  int64_t largest_lead = 0;
  for (const auto& request : running_) {
    largest_lead = std::max(
        {largest_lead, shares_.TenantLead(request->member), shares_.SessionLead(request->member)});
  }
  stats.largest_lead = static_cast<size_t>(largest_lead);
  stats.waiting_of_tenant = waiting_of_tenant_;
  stats.mixed_step_tokens = chunk_size_.rows();
  return stats;
}

}  // namespace trellis
