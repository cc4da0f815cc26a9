// A ModelSource for tests: fakes that are loaded when the test says so, and tell what happens to
// them.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "server/model_source.h"
#include "server/test_support.h"

namespace trellis {

// What has happened; outlives the source and its models. Any thread.
class FakeModels {
 public:
  struct Options {
    size_t bytes = 1;
    Status error = Status::Ok();  // of loading it
  };
  std::map<std::string, Options> models;  // set before the source is used
  Gate loading;                           // closed: no load ends

  std::vector<std::string> loads() const {
    MutexLock lock(mutex_);
    return loads_;
  }
  size_t most_bytes() const {
    MutexLock lock(mutex_);
    return most_bytes_;
  }
  std::vector<std::string> loaded() const {
    MutexLock lock(mutex_);
    return loaded_;
  }

  std::unique_ptr<ModelSource> Source() { return std::make_unique<Source_>(*this); }
  std::unique_ptr<ModelPool> Pool(size_t memory_bytes, const std::string& default_model = "",
                                  size_t max_waiting = 512) {
    return std::move(ModelPool::Create(Source(), {.memory_bytes = memory_bytes,
                                                  .max_waiting = max_waiting,
                                                  .default_model = default_model}))
        .value();
  }

 private:
  // Its name is in loaded() while it lives.
  class Model : public FakeModel {
   public:
    Model(FakeModels& all, std::string name)
        : FakeModel(4096, kTestVocab), all_(all), name_(std::move(name)) {
      MutexLock lock(all_.mutex_);
      all_.loaded_.push_back(name_);
      size_t bytes = 0;
      for (const std::string& it : all_.loaded_) bytes += all_.models.at(it).bytes;
      all_.most_bytes_ = std::max(all_.most_bytes_, bytes);
    }
    ~Model() override {
      MutexLock lock(all_.mutex_);
      std::erase(all_.loaded_, name_);
    }

   private:
    FakeModels& all_;
    const std::string name_;
  };

  class Source_ : public ModelSource {
   public:
    explicit Source_(FakeModels& all) : all_(all) {}

    Result<std::vector<ModelInfo>> List() override {
      std::vector<ModelInfo> infos;
      for (const auto& [name, options] : all_.models) infos.push_back(*Find(name));
      return infos;
    }
    // "also:NAME" is another name.
    Result<ModelInfo> Find(const std::string& asked) override {
      const std::string name = asked.starts_with("also:") ? asked.substr(5) : asked;
      const auto found = all_.models.find(name);
      if (found == all_.models.end()) return Status(StatusCode::kNotFound, "no " + name);
      ModelInfo info;
      info.name = name;
      info.spec.architecture = "fake";
      info.memory_bytes = found->second.bytes;
      return info;
    }
    Result<ModelDetails> Describe(const ModelInfo& model) override {
      return ModelDetails{.chat_template = "of " + model.name, .capabilities = {}};
    }
    Result<std::unique_ptr<Service>> Load(const ModelInfo& model, LoadProgress& progress) override {
      progress.total = 4;
      progress.done = 1;
      {
        MutexLock lock(all_.mutex_);
        all_.loads_.push_back(model.name);
      }
      all_.loading.Pass();
      const Status& error = all_.models.at(model.name).error;
      if (!error.ok()) return error;
      TestOptions options;
      options.model_name = model.name;
      return FakeService(options, std::make_unique<Model>(all_, model.name), [] {});
    }

   private:
    FakeModels& all_;
  };

  mutable Mutex mutex_;
  std::vector<std::string> loads_ TRELLIS_GUARDED_BY(mutex_);
  std::vector<std::string> loaded_ TRELLIS_GUARDED_BY(mutex_);
  size_t most_bytes_ TRELLIS_GUARDED_BY(mutex_) = 0;
};

}  // namespace trellis
