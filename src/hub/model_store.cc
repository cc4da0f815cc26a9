#include "hub/model_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <optional>

#include "hub/http_client.h"
#include "hub/model_name.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartial = ".partial";
constexpr size_t kKeyLength = 13;  // of a partial file's name: a dot and twelve digits

// A relative path that stays where it is put.
bool IsInside(const std::string& path) {
  const fs::path parts(path);
  return !path.empty() && parts.is_relative() &&
         std::none_of(parts.begin(), parts.end(), [](const fs::path& part) {
           return part == ".." || part == "." || part.empty() || part.string().starts_with(".");
         });
}

// `name.gguf.KEY.partial` -> `name.gguf`; other names stay.
std::string WithoutPartial(std::string path) {
  if (path.ends_with(kPartial) && path.size() > kPartial.size() + kKeyLength) {
    path.resize(path.size() - kPartial.size() - kKeyLength);
  }
  return path;
}

// The repository that a path in the store belongs to; empty if it is none's.
std::string RepoOf(const std::string& path) {
  const size_t first = path.find('/');
  const size_t second = first == path.npos ? first : path.find('/', first + 1);
  return second == path.npos ? "" : path.substr(0, second);
}

struct Found {
  StoredModel model;
  size_t num_parts = 1;
  std::map<size_t, std::string> parts;
};

void Add(const std::string& folder, const fs::directory_entry& entry,
         std::map<std::string, Found>* found) {
  const std::string path = entry.path().lexically_relative(folder).string();
  const std::string whole_path = WithoutPartial(path);
  const auto name = ParseGgufName(whole_path);
  if (!name) return;
  std::error_code error;
  const auto bytes = entry.file_size(error);
  const auto time = entry.last_write_time(error);
  if (error) return;  // it has just gone
  Found& it = (*found)[name->stem];
  it.model.name = name->stem, it.model.quant = name->quant, it.model.bytes += bytes;
  it.model.modified =
      std::max(it.model.modified, std::chrono::time_point_cast<std::chrono::system_clock::duration>(
                                      std::chrono::file_clock::to_sys(time)));
  it.num_parts = name->num_parts;
  if (path == whole_path) {
    it.parts[name->part] = entry.path().string();
  } else {
    it.model.partial_files.push_back(entry.path().string());
  }
}

// All models below `below`. What cannot be read there, or goes meanwhile, has none; the error is of
// `below` itself.
std::error_code AddAll(const std::string& folder, const fs::path& below,
                       std::map<std::string, Found>* found) {
  std::error_code error;
  fs::directory_iterator entries(below, error);
  for (const fs::directory_iterator end; !error && entries != end; entries.increment(error)) {
    std::error_code ignored;
    if (entries->is_directory(ignored) && !entries->is_symlink(ignored)) {
      (void)AddAll(folder, entries->path(), found);
    } else if (entries->is_regular_file(ignored)) {
      Add(folder, *entries, found);
    }
  }
  return error;
}

Status Ambiguous(const std::string& name, const std::vector<StoredModel>& models) {
  std::string names;
  for (const StoredModel& model : models) names += (names.empty() ? "" : ", ") + model.name;
  return Status(StatusCode::kInvalidArgument, fmt::format("'{}' may be {}", name, names));
}

// Those of `models` that `name` may mean.
std::vector<StoredModel> Matching(const std::vector<StoredModel>& models, std::string name,
                                  const std::string& folder) {
  std::vector<StoredModel> matching;
  const auto add_if = [&](const auto& condition) {
    if (!matching.empty()) return;
    std::copy_if(models.begin(), models.end(), std::back_inserter(matching), condition);
  };
  const auto stem_of = [&](const StoredModel& model) {
    const std::string& file = model.files.empty() ? model.partial_files[0] : model.files[0];
    return ParseGgufName(WithoutPartial(fs::path(file).lexically_relative(folder).string()))->stem;
  };
  add_if([&](const StoredModel& model) { return model.name == name; });
  if (const auto reference = ParseModelReference(name)) {
    // The quantisation may be written otherwise, or be a part of what the file is called.
    add_if([&](const StoredModel& model) {
      const std::string stem = stem_of(model);
      return RepoOf(stem) == reference->repo &&
             (reference->quant.empty() ||
              ChooseModel({fs::path(stem).filename().string() + ".gguf"}, reference->quant).ok());
    });
  }
  if (const auto gguf = ParseGgufName(name)) name = gguf->stem;
  add_if([&](const StoredModel& model) { return stem_of(model) == name; });
  add_if([&](const StoredModel& model) { return fs::path(stem_of(model)).filename() == name; });
  return matching;
}

}  // namespace

ModelStore::ModelStore(const std::string& folder)
    : folder_(fs::path(folder).lexically_normal().string()) {
  while (folder_.size() > 1 && folder_.ends_with('/')) folder_.pop_back();
}

Result<ModelStore> ModelStore::Open() {
  const auto environment = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const std::string models = environment("TRELLIS_MODELS_DIR"); !models.empty()) {
    return ModelStore(models);
  }
  if (const std::string cache = environment("TRELLIS_CACHE"); !cache.empty()) {
    return ModelStore(cache + "/models");
  }
  if (const std::string cache = environment("XDG_CACHE_HOME"); cache.starts_with('/')) {
    return ModelStore(cache + "/trellis/models");
  }
  if (const std::string home = environment("HOME"); !home.empty()) {
    return ModelStore(home + "/.cache/trellis/models");
  }
  return Status(StatusCode::kNotFound,
                "there is no folder for models: set TRELLIS_MODELS_DIR or HOME");
}

Result<std::string> ModelStore::PathOf(const std::string& repo, const std::string& path) const {
  if (!ParseModelReference(repo) || !IsInside(path)) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("'{}' of {} is no path that could be kept here", path, repo));
  }
  return folder_ + "/" + repo + "/" + path;
}

Result<std::string> ModelStore::PathOfUrl(const std::string& url) const {
  const std::string plain = WithoutSecrets(url);
  const std::string name = plain.substr(plain.rfind('/') + 1);
  const std::string origin = OriginOf(url);
  const size_t host = origin.find("//") + 2;
  if (origin.empty() || !ParseGgufName(name) || !IsInside(name)) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("'{}' is no URL of a GGUF file (http://... .gguf)", plain));
  }
  return folder_ + "/" + origin.substr(host, origin.rfind(':') - host) + "/" + name;
}

Result<std::vector<StoredModel>> ModelStore::List() const {
  std::map<std::string, Found> found;
  std::error_code error;
  if (fs::exists(folder_, error)) error = AddAll(folder_, folder_, &found);
  if (error) {
    return Status(StatusCode::kIo, fmt::format("cannot read {}: {}", folder_, error.message()));
  }
  std::map<std::string, size_t> num_named;  // models that a short name would mean
  const auto short_name = [](const std::string& stem, const StoredModel& model) {
    const std::string repo = RepoOf(stem);
    return repo.empty() || model.quant.empty() ? stem : repo + ":" + model.quant;
  };
  for (const auto& [stem, it] : found) num_named[short_name(stem, it.model)]++;
  std::vector<StoredModel> models;
  for (auto& [stem, it] : found) {
    if (num_named[short_name(stem, it.model)] == 1) it.model.name = short_name(stem, it.model);
    it.model.is_whole = it.parts.size() == it.num_parts;
    for (const auto& [part, path] : it.parts) it.model.files.push_back(path);
    models.push_back(std::move(it.model));
  }
  std::sort(models.begin(), models.end(),
            [](const StoredModel& a, const StoredModel& b) { return a.name < b.name; });
  return models;
}

Result<StoredModel> ModelStore::Find(const std::string& name) const {
  TRELLIS_ASSIGN_OR_RETURN(std::vector<StoredModel> models, List());
  std::erase_if(models, [](const StoredModel& model) { return !model.is_whole; });
  const std::vector<StoredModel> matching = Matching(models, name, folder_);
  if (matching.empty()) {
    return Status(StatusCode::kNotFound,
                  fmt::format("there is no model '{}' (trellis list says which there are)", name));
  }
  if (matching.size() == 1) return matching[0];
  const auto reference = ParseModelReference(name);
  if (!reference) return Ambiguous(name, matching);
  std::vector<std::string> files;
  for (const StoredModel& model : matching) {
    files.insert(files.end(), model.files.begin(), model.files.end());
  }
  TRELLIS_ASSIGN_OR_RETURN(const std::vector<std::string> chosen,
                           ChooseModel(files, reference->quant));
  return *std::find_if(matching.begin(), matching.end(),
                       [&](const StoredModel& model) { return model.files[0] == chosen[0]; });
}

Result<StoredModel> ModelStore::Remove(const std::string& name) const {
  TRELLIS_ASSIGN_OR_RETURN(const std::vector<StoredModel> models, List());
  const std::vector<StoredModel> matching = Matching(models, name, folder_);
  if (matching.empty()) {
    return Status(StatusCode::kNotFound,
                  fmt::format("there is no model '{}' (trellis list says which there are)", name));
  }
  if (matching.size() > 1) return Ambiguous(name, matching);
  const StoredModel& model = matching[0];
  for (const auto* files : {&model.files, &model.partial_files}) {
    for (const std::string& file : *files) {
      std::error_code error;
      fs::remove(file, error);
      if (error) {
        return Status(StatusCode::kIo, fmt::format("cannot remove {}: {}", file, error.message()));
      }
    }
  }
  // Folders that have nothing else go too, up to the store's own.
  const std::string& file = model.files.empty() ? model.partial_files[0] : model.files[0];
  for (fs::path at = fs::path(file).parent_path(); at != fs::path(folder_); at = at.parent_path()) {
    std::error_code error;
    const auto is_lock = [](const fs::directory_entry& e) {
      return e.path().filename() == ".lock";
    };
    const fs::directory_iterator entries(at, error);
    if (error || !std::all_of(begin(entries), end(entries), is_lock)) break;
    fs::remove_all(at, error);
  }
  return model;
}

}  // namespace trellis
