#include "server/model_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <iterator>
#include <system_error>
#include <tuple>
#include <utility>

#include "api/errors.h"
#include "base/check.h"
#include "os/machine.h"

namespace trellis {
namespace {

ModelInfo InfoOf(const Service& service) {
  return {.name = service.model_name,
          .spec = service.model->spec(),
          .context_size = service.engine->context_size(),
          .fingerprint = service.fingerprint,
          .created = service.created};
}

Status Stopping() {
  return Status(StatusCode::kUnavailable, "the server is stopping");
}

Result<std::unique_ptr<Service>> LoadFrom(ModelSource& source, const ModelInfo& model,
                                          LoadProgress& progress) {
  try {
    return source.Load(model, progress);
  } catch (const std::exception& error) {  // out of memory
    return Status(StatusCode::kInternal, error.what());
  }
}

}  // namespace

struct ModelPool::Resident {
  ModelInfo info;
  LoadProgress progress;
  std::unique_ptr<Service> service = {};  // null: loading
  size_t num_leases = 0;
  uint64_t last_use = 0;    // counts uses of all models
  bool is_leaving = false;  // gets no new leases: who waits longest needs its memory
};

// What the pool's thread does next, without the lock.
struct ModelPool::Step {
  struct Grant {
    Callback callback;
    ModelLease lease;
  };
  std::vector<Grant> grants;
  std::unique_ptr<Resident> unload;
  Resident* load = nullptr;
};

// --- ModelLease ---

ModelLease::ModelLease(ModelPool& pool, ModelPool::Resident& resident, ModelPool::Use use)
    : pool_(&pool), resident_(&resident), service_(resident.service.get()), use_(use) {}

ModelLease::ModelLease(ModelLease&& other) noexcept
    : pool_(other.pool_),
      resident_(std::exchange(other.resident_, nullptr)),
      service_(other.service_),
      use_(other.use_) {}

ModelLease& ModelLease::operator=(ModelLease&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(resident_, other.resident_);
  std::swap(service_, other.service_);
  std::swap(use_, other.use_);
  return *this;
}

ModelLease::~ModelLease() {
  if (resident_ != nullptr) pool_->Release(*resident_, use_);
}

ModelLease ModelPool::Lend(Resident& resident, Use use) {
  resident.num_leases++;
  if (use == Use::kAnswer) resident.last_use = ++last_use_;
  return ModelLease(*this, resident, use);
}

void ModelPool::Release(Resident& resident, Use use) {
  MutexLock lock(mutex_);
  if (use == Use::kAnswer) resident.last_use = ++last_use_;
  if (--resident.num_leases == 0) changed_.NotifyAll();
}

// --- The pool ---

Result<std::unique_ptr<ModelPool>> ModelPool::Create(std::unique_ptr<ModelSource> source,
                                                     const Options& options) {
  std::unique_ptr<ModelPool> pool(new ModelPool(std::move(source), options));
  try {
    pool->thread_ = std::thread([p = pool.get()] { p->Run(); });
  } catch (const std::system_error& error) {
    return Status(StatusCode::kIo,
                  fmt::format("cannot start the thread that loads models: {}", error.what()));
  }
  return pool;
}

ModelPool::ModelPool(std::unique_ptr<ModelSource> source, const Options& options)
    : source_(std::move(source)), options_(options) {}

ModelPool::ModelPool(std::unique_ptr<Service> only)
    : options_({.memory_bytes = 0, .max_waiting = 0, .default_model = only->model_name}) {
  auto resident = std::make_unique<Resident>();
  resident->info = InfoOf(*only);
  resident->service = std::move(only);
  MutexLock lock(mutex_);
  residents_[options_.default_model] = std::move(resident);
}

ModelPool::~ModelPool() {
  Stop();
  if (thread_.joinable()) thread_.join();
}

ModelPool::Resident* ModelPool::FindLoaded(const std::string& name) {
  auto found = residents_.find(name.empty() ? options_.default_model : name);
  if (found == residents_.end()) {
    const auto other = other_names_.find(name);
    if (other != other_names_.end() && std::chrono::steady_clock::now() < other->second.until)
      found = residents_.find(other->second.name);
  }
  if (found == residents_.end() || found->second->service == nullptr) return nullptr;
  return found->second.get();
}

ModelLease ModelPool::TryAcquire(const std::string& name) {
  MutexLock lock(mutex_);
  Resident* resident = FindLoaded(name);
  if (resident == nullptr || resident->is_leaving) return {};
  return Lend(*resident, Use::kAnswer);
}

std::string ModelPool::NamesOf(const std::vector<ModelInfo>& models) const {
  constexpr size_t kEnough = 10;
  std::string names;
  for (size_t i = 0; i < std::min(models.size(), kEnough); i++)
    names += fmt::format("{}'{}'", i == 0 ? "" : ", ", models[i].name);
  if (models.size() > kEnough) names += fmt::format(" and {} more", models.size() - kEnough);
  return names.empty() ? "none" : names;
}

Result<ModelInfo> ModelPool::Find(const std::string& asked) {
  const std::string& name = asked.empty() ? options_.default_model : asked;
  std::vector<ModelInfo> all;
  Result<ModelInfo> found = Status(StatusCode::kNotFound, "");
  if (source_ == nullptr) {
    MutexLock lock(mutex_);
    const ModelInfo& only = residents_.begin()->second->info;
    if (name == only.name) return only;
    all.push_back(only);
  } else if (name.empty()) {
    TRELLIS_ASSIGN_OR_RETURN(all, source_->List());
    if (all.size() == 1) return all.front();
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("say which model is meant: this server serves {}", NamesOf(all)));
  } else {
    found = source_->Find(name);
    if (!found.ok() && found.status().code() == StatusCode::kNotFound) {
      TRELLIS_ASSIGN_OR_RETURN(all, source_->List());
    }
  }
  if (!found.ok() && found.status().code() == StatusCode::kNotFound) {
    return Status(StatusCode::kNotFound,
                  fmt::format("the model '{}' does not exist; this server serves {}",
                              Excerpt(name, 200), NamesOf(all)));
  }
  if (found.ok() && found->name != name) {
    constexpr size_t kMany = 1000;
    constexpr std::chrono::seconds kLifetime{10};
    MutexLock lock(mutex_);
    if (other_names_.size() >= kMany) other_names_.clear();
    other_names_[name] = {found->name, std::chrono::steady_clock::now() + kLifetime};
  }
  return found;
}

uint64_t ModelPool::Request(const ModelInfo& model, const std::string& tenant, Callback callback) {
  Result<ModelLease> result = Stopping();
  {
    MutexLock lock(mutex_);
    Resident* resident = FindLoaded(model.name);
    if (resident != nullptr && !resident->is_leaving && !stopping_) {
      result = Lend(*resident, Use::kAnswer);
    } else if (model.memory_bytes > options_.memory_bytes) {
      result =
          Status(StatusCode::kUnsupported,
                 fmt::format("'{}' takes {} MiB of memory, weights, keys and values; all models "
                             "together may have {} (--models-memory)",
                             model.name, model.memory_bytes >> 20, options_.memory_bytes >> 20));
    } else if (WaitingOf(tenant) >= options_.max_waiting) {
      result = Status(StatusCode::kResourceExhausted,
                      fmt::format("{} requests wait for a model to be loaded already (--max-queue)",
                                  options_.max_waiting));
    } else if (!stopping_) {
      waiting_.push_back({++last_id_, model, tenant, std::move(callback)});
      changed_.NotifyAll();
      return last_id_;
    }
  }
  callback(std::move(result));
  return 0;
}

size_t ModelPool::WaitingOf(const std::string& tenant) const {
  return static_cast<size_t>(
      std::count_if(waiting_.begin(), waiting_.end(),
                    [&](const Waiting& waiting) { return waiting.tenant == tenant; }));
}

void ModelPool::Cancel(uint64_t id) {
  std::list<Waiting> cancelled;
  MutexLock lock(mutex_);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                  [&](const Waiting& waiting) { return waiting.id == id; });
  if (found == waiting_.end()) return;
  cancelled.splice(cancelled.begin(), waiting_, found);
  changed_.NotifyAll();
}

// --- Looking ---

Result<ModelLease> ModelPool::Look(const std::string& name) {
  MutexLock lock(mutex_);
  if (Resident* resident = FindLoaded(name)) return Lend(*resident, Use::kLook);
  if (!name.empty() || !options_.default_model.empty()) {
    return Status(StatusCode::kNotFound,
                  fmt::format("no model '{}' is loaded (GET /v1/models says which are)",
                              name.empty() ? options_.default_model : Excerpt(name, 200)));
  }
  Resident* only = nullptr;
  for (const auto& [key, resident] : residents_) {
    if (resident->service == nullptr) continue;
    if (only != nullptr) {
      return Status(StatusCode::kInvalidArgument,
                    "several models are loaded: say which one is meant (model=NAME)");
    }
    only = resident.get();
  }
  if (only != nullptr) return Lend(*only, Use::kLook);
  return Status(StatusCode::kNotFound, "no model is loaded: a request for an answer loads one");
}

std::vector<ModelLease> ModelPool::LookAtAll() {
  std::vector<ModelLease> leases;
  MutexLock lock(mutex_);
  for (const auto& [name, resident] : residents_) {
    if (resident->service != nullptr) leases.push_back(Lend(*resident, Use::kLook));
  }
  return leases;
}

std::vector<ModelInfo> ModelPool::Loaded() const {
  std::vector<ModelInfo> loaded;
  MutexLock lock(mutex_);
  for (const auto& [name, resident] : residents_) {
    if (resident->service != nullptr) loaded.push_back(resident->info);
  }
  return loaded;
}

Result<std::vector<ListedModel>> ModelPool::List() {
  std::map<std::string, ListedModel> models;
  if (source_ != nullptr) {
    TRELLIS_ASSIGN_OR_RETURN(std::vector<ModelInfo> infos, source_->List());
    for (ModelInfo& info : infos) models[info.name].info = std::move(info);
  }
  {
    MutexLock lock(mutex_);
    for (const auto& [name, resident] : residents_) {
      const bool is_loaded = resident->service != nullptr;
      const size_t done = resident->progress.done, total = resident->progress.total;
      models[name] = {
          .info = resident->info,
          .state = is_loaded ? ListedModel::State::kLoaded : ListedModel::State::kLoading,
          .progress = total == 0 ? 0 : static_cast<double>(done) / static_cast<double>(total)};
    }
  }
  std::vector<ListedModel> list;
  for (auto& [name, model] : models) {
    const bool is_default = name == options_.default_model;
    list.insert(is_default ? list.begin() : list.end(), std::move(model));
  }
  return list;
}

Result<ModelDetails> ModelPool::Describe(const ModelInfo& model) {
  if (const Result<ModelLease> lease = Look(model.name); lease.ok()) {
    return ModelDetails{.chat_template = (*lease)->tokenizer->chat_template(),
                        .capabilities = (*lease)->chat_template->capabilities()};
  }
  return source_->Describe(model);
}

bool ModelPool::is_loading() const {
  MutexLock lock(mutex_);
  return std::any_of(residents_.begin(), residents_.end(),
                     [](const auto& entry) { return entry.second->service == nullptr; });
}

// --- The pool's thread ---

void ModelPool::Run() {
  for (;;) {
    Step step;
    {
      MutexLock lock(mutex_);
      while (!stopping_ && !PlanStep(&step)) changed_.Wait(mutex_);
      if (stopping_) return;
      is_calling_ = true;
    }
    for (Step::Grant& grant : step.grants) grant.callback(std::move(grant.lease));
    step.grants.clear();  // callbacks are not kept while models come and go
    HasCalled();
    if (step.unload != nullptr) {
      const std::string name = step.unload->info.name;
      step.unload.reset();
      ReturnFreeMemory();
      options_.log.Info("unloaded", {{"model", name}});
    }
    if (step.load != nullptr) Load(*step.load);
  }
}

// False: there is nothing to do.
bool ModelPool::PlanStep(Step* step) {
  for (const auto& [name, resident] : residents_) resident->is_leaving = false;
  bool is_first = true;  // of those whose model is not there
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    const auto waiting = it++;
    Resident* loaded = FindLoaded(waiting->model.name);
    if (loaded != nullptr && !loaded->is_leaving) {
      step->grants.push_back({std::move(waiting->callback), Lend(*loaded, Use::kAnswer)});
      waiting_.erase(waiting);
    } else if (loaded == nullptr && std::exchange(is_first, false) &&
               MakeRoom(waiting->model.memory_bytes)) {
      auto resident = std::make_unique<Resident>();
      resident->info = waiting->model;
      step->load = resident.get();
      residents_[waiting->model.name] = std::move(resident);
    }
  }
  const auto gone = std::find_if(residents_.begin(), residents_.end(), [](const auto& entry) {
    return entry.second->is_leaving && entry.second->num_leases == 0;
  });
  if (gone != residents_.end()) {
    step->unload = std::move(gone->second);
    residents_.erase(gone);
  }
  return !step->grants.empty() || step->unload != nullptr || step->load != nullptr;
}

// Whether another `bytes` fit; if not, those that have to go for that are leaving now.
bool ModelPool::MakeRoom(size_t bytes) {
  size_t used = bytes;
  std::vector<Resident*> order;
  for (const auto& [name, resident] : residents_) {
    used += resident->info.memory_bytes;
    order.push_back(resident.get());
  }
  std::sort(order.begin(), order.end(), [](const Resident* a, const Resident* b) {
    return std::tuple(a->num_leases > 0, a->last_use) < std::tuple(b->num_leases > 0, b->last_use);
  });
  if (used <= options_.memory_bytes) return true;
  for (Resident* resident : order) {
    if (used <= options_.memory_bytes) break;
    resident->is_leaving = true;
    used -= resident->info.memory_bytes;
  }
  return false;
}

void ModelPool::Load(Resident& resident) {
  const std::string name = resident.info.name;
  options_.log.Info("loading", {{"model", name}});
  Result<std::unique_ptr<Service>> service = LoadFrom(*source_, resident.info, resident.progress);
  if (service.ok()) {
    MutexLock lock(mutex_);
    resident.info.fingerprint = (*service)->fingerprint;
    resident.service = std::move(*service);
    return;
  }
  const Status failed(service.status().code(),
                      fmt::format("cannot load '{}': {}", name, service.status().message()));
  options_.log.Error("load_failed", {{"model", name}, {"message", failed.message()}});
  std::list<Waiting> told;
  {
    MutexLock lock(mutex_);
    for (auto it = waiting_.begin(); it != waiting_.end();) {
      const auto waiting = it++;
      if (waiting->model.name == name) told.splice(told.end(), waiting_, waiting);
    }
    residents_.erase(name);
    is_calling_ = true;
  }
  for (const Waiting& waiting : told) waiting.callback(failed);
  told.clear();
  HasCalled();
}

void ModelPool::HasCalled() {
  MutexLock lock(mutex_);
  is_calling_ = false;
  changed_.NotifyAll();
}

// --- The end ---

void ModelPool::Stop() {
  std::list<Waiting> told;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    told.swap(waiting_);
    changed_.NotifyAll();
    while (is_calling_) changed_.Wait(mutex_);
  }
  for (const Waiting& waiting : told) waiting.callback(Stopping());
}

void ModelPool::Drain(std::chrono::milliseconds timeout) {
  Stop();
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  for (const ModelLease& lease : LookAtAll()) {
    const auto left = deadline - std::chrono::steady_clock::now();
    lease->engine->Drain(
        std::max(std::chrono::milliseconds(0), std::chrono::ceil<std::chrono::milliseconds>(left)));
  }
}

}  // namespace trellis
