#include "model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "console.h"
#include "kernels/kernels.h"
#include "model/gguf_file.h"
#include "model/transformer_config.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;
using SystemTime = std::chrono::system_clock::time_point;

SystemTime ModifiedAt(const std::string& path) {
  std::error_code error;
  const auto time = fs::last_write_time(path, error);
  if (error) return {};
  return std::chrono::time_point_cast<std::chrono::system_clock::duration>(
      std::chrono::file_clock::to_sys(time));
}

// Clients, who are told, need not know where the server has its files.
Status WithoutFolder(const Status& status, const std::string& path) {
  const std::string folder = path.substr(0, path.find_last_of('/') + 1);
  std::string message = status.message();
  for (size_t at = 0; !folder.empty() && (at = message.find(folder, at)) != std::string::npos;)
    message.erase(at, folder.size());
  return Status(status.code(), std::move(message));
}

// An error that is none of what is in the file.
bool MayPass(const Status& status) {
  return status.code() == StatusCode::kIo || status.code() == StatusCode::kNotFound ||
         status.code() == StatusCode::kInternal;
}

// Some types take a little more in memory than in the file (kernels/packed_format.h).
size_t WeightBytes(const ModelSpec& spec) {
  return spec.file_bytes + spec.file_bytes / 32;
}

// The rule of docs/adr/0005: what a model gets does not depend on which others are loaded.
Result<size_t> CacheBytes(const ModelInfo& info, const ModelOptions& options, size_t memory_bytes) {
  if (!options.kv_cache.empty()) return ParseBytes(options.kv_cache);
  TRELLIS_ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernelsFromEnvironment());
  const size_t weights = std::min(WeightBytes(info.spec), memory_bytes);
  // Of this it is half.
  const size_t available = std::min(memory_bytes / 2, memory_bytes - weights);
  return DefaultCacheBytes(LayoutOf(info.spec, options, *kernels), info.context_size, available);
}

Result<ModelInfo> ReadInfo(const std::string& path, SystemTime modified,
                           const ModelOptions& options, size_t memory_bytes) {
  TRELLIS_ASSIGN_OR_RETURN(const std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  TRELLIS_ASSIGN_OR_RETURN(TransformerConfig config, ReadTransformerConfig(*gguf));
  ModelInfo info;
  info.spec = std::move(config.spec);
  info.context_size = info.spec.context_length;
  if (options.context_size != 0)
    info.context_size = std::min(info.context_size, options.context_size);
  info.created =
      std::chrono::duration_cast<std::chrono::seconds>(modified.time_since_epoch()).count();
  TRELLIS_ASSIGN_OR_RETURN(const size_t cache, CacheBytes(info, options, memory_bytes));
  info.memory_bytes = WeightBytes(info.spec) + cache;
  return info;
}

}  // namespace

ModelFolder::ModelFolder(ModelStore store, Options options)
    : store_(std::move(store)), options_(std::move(options)) {}

Result<std::map<std::string, ModelFolder::File>> ModelFolder::Files() const {
  const Result<std::vector<StoredModel>> stored = store_.List();
  if (!stored.ok()) {
    Say("warning: {}\n", stored.status().message());
    return Status(stored.status().code(), "the folder of models cannot be read");
  }
  std::map<std::string, File> files;
  for (const StoredModel& model : *stored) {
    if (model.is_whole) files[model.name] = {model.files[0], model.bytes, model.modified};
  }
  const std::string& path = options_.model.path;
  if (path.empty()) return files;
  std::string name = options_.name;
  std::error_code error;
  for (auto it = files.begin(); it != files.end(); ++it) {
    if (!fs::equivalent(it->second.path, path, error) || error) continue;
    if (name.empty()) name = it->first;
    files.erase(it);
    break;
  }
  if (name.empty()) name = NameOfFile(path);
  const auto bytes = fs::file_size(path, error);
  files[name] = {path, error ? 0 : bytes, ModifiedAt(path)};
  return files;
}

Result<std::string> ModelFolder::NameOfPath() const {
  TRELLIS_ASSIGN_OR_RETURN(const auto files, Files());
  for (const auto& [name, file] : files) {
    if (file.path == options_.model.path) return name;
  }
  return Status(StatusCode::kInternal, options_.model.path + ": it has no name");
}

Result<ModelInfo> ModelFolder::Read(const std::string& name, const File& file) {
  MutexLock lock(mutex_);
  auto known = known_.find(file.path);
  if (known == known_.end() || known->second.bytes != file.bytes ||
      known->second.modified != file.modified || MayPass(known->second.info.status())) {
    Result<ModelInfo> info =
        ReadInfo(file.path, file.modified, options_.model, options_.memory_bytes);
    const bool is_said =
        known != known_.end() && known->second.info.status().message() == info.status().message();
    if (!info.ok() && !is_said)
      Say("warning: {} cannot be served: {}\n", name, info.status().message());
    known =
        known_.insert_or_assign(file.path, Known{file.bytes, file.modified, std::move(info), {}})
            .first;
  }
  if (!known->second.info.ok()) return WithoutFolder(known->second.info.status(), file.path);
  ModelInfo info = *known->second.info;
  info.name = name;
  return info;
}

Result<std::vector<ModelInfo>> ModelFolder::List() {
  TRELLIS_ASSIGN_OR_RETURN(const auto files, Files());
  std::vector<ModelInfo> models;
  for (const auto& [name, file] : files) {
    Result<ModelInfo> info = Read(name, file);
    if (info.ok()) models.push_back(std::move(*info));
  }
  return models;
}

Result<ModelInfo> ModelFolder::Find(const std::string& name) {
  TRELLIS_ASSIGN_OR_RETURN(const auto files, Files());
  if (const auto exact = files.find(name); exact != files.end())
    return Read(exact->first, exact->second);
  TRELLIS_ASSIGN_OR_RETURN(const StoredModel stored, store_.Find(name));
  std::error_code error;
  for (const auto& [own_name, file] : files) {
    if (fs::equivalent(file.path, stored.files[0], error) && !error) return Read(own_name, file);
  }
  return Status(StatusCode::kNotFound, fmt::format("there is no model '{}' any more", name));
}

Result<std::string> ModelFolder::PathOf(const std::string& name) const {
  TRELLIS_ASSIGN_OR_RETURN(const auto files, Files());
  const auto found = files.find(name);
  if (found != files.end()) return found->second.path;
  return Status(StatusCode::kNotFound, "its file is gone");
}

Result<ModelDetails> ModelFolder::Describe(const ModelInfo& model) {
  TRELLIS_ASSIGN_OR_RETURN(const std::string path, PathOf(model.name));
  {
    MutexLock lock(mutex_);
    const auto known = known_.find(path);
    if (known != known_.end() && known->second.details) return *known->second.details;
  }
  TRELLIS_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer, Tokenizer::Load(path));
  TRELLIS_ASSIGN_OR_RETURN(const std::unique_ptr<ChatTemplate> chat_template,
                           ChatTemplate::Create(*tokenizer, tokenizer->chat_template()));
  ModelDetails details{.chat_template = tokenizer->chat_template(),
                       .capabilities = chat_template->capabilities()};
  MutexLock lock(mutex_);
  if (const auto known = known_.find(path); known != known_.end()) known->second.details = details;
  return details;
}

Result<std::unique_ptr<Service>> ModelFolder::Load(const ModelInfo& model, LoadProgress& progress) {
  ModelOptions options = options_.model;
  TRELLIS_ASSIGN_OR_RETURN(options.path, PathOf(model.name));
  TRELLIS_ASSIGN_OR_RETURN(const size_t cache,
                           CacheBytes(model, options_.model, options_.memory_bytes));
  options.kv_cache = fmt::to_string(cache);
  options.context_size = model.context_size;
  const auto tell = [this, &progress](size_t done, size_t total) {
    progress.done = done;
    progress.total = total;
    if (options_.progress) options_.progress(done, total);
  };
  Result<std::unique_ptr<Service>> service = LoadService(options, tell);
  if (!service.ok()) return WithoutFolder(service.status(), options.path);
  (*service)->model_name = model.name;
  return service;
}

}  // namespace trellis
