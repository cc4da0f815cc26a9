// ModelFolder: the GGUF files of a folder, as the models of a server (server/model_source.h).
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/mutex.h"
#include "hub/model_store.h"
#include "loading.h"
#include "server/model_source.h"

namespace trellis {

// Files may come and go while the server runs: each call reads the folder anew, and of files that
// have not changed nothing else.
class ModelFolder : public ModelSource {
 public:
  struct Options {
    // What each is loaded with. A path is a model beside those of the folder, or one of them.
    ModelOptions model;
    std::string name;         // of that; empty: as the folder calls it, else its file's name
    size_t memory_bytes = 0;  // of all that are loaded together
    // Told of each load too; may be empty.
    std::function<void(size_t done, size_t total)> progress = {};
  };
  ModelFolder(ModelStore store, Options options);

  Result<std::vector<ModelInfo>> List() override;
  Result<ModelInfo> Find(const std::string& name) override;
  Result<ModelDetails> Describe(const ModelInfo& model) override;
  Result<std::unique_ptr<Service>> Load(const ModelInfo& model, LoadProgress& progress) override;

  // What the model of Options::model.path is called. ERRORS: kIo.
  Result<std::string> NameOfPath() const;

 private:
  struct File {
    std::string path;
    size_t bytes = 0;
    std::chrono::system_clock::time_point modified;
  };
  // By name; files that are not whole are none. ERRORS: kIo.
  Result<std::map<std::string, File>> Files() const;
  Result<ModelInfo> Read(const std::string& name, const File& file);
  Result<std::string> PathOf(const std::string& name) const;

  const ModelStore store_;
  const Options options_;

  struct Known {
    size_t bytes;
    std::chrono::system_clock::time_point modified;
    Result<ModelInfo> info;
    std::optional<ModelDetails> details;
  };
  Mutex mutex_;
  std::map<std::string, Known> known_ TRELLIS_GUARDED_BY(mutex_);  // by path
};

}  // namespace trellis
