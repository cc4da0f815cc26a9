// ModelStore: the folder of pulled models. There is nothing but the files themselves:
//
//   USER/REPO/PATH.gguf          of a hub, PATH as it is there
//   HOST/NAME.gguf               of another URL
//   NAME.gguf                    what somebody put there; links to files are fine
//   ....gguf.KEY.partial         what is not whole yet (hub/download.h)
//   .../.lock                    held while something is pulled into that folder
//
// THREADS: any; another process may add and remove files meanwhile.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "base/status.h"

namespace trellis {

struct StoredModel {
  std::string name;                // "user/repo:QUANT" if that is one model, else its path
                                   // in the store without ".gguf"
  std::string quant;               // of the file's name; may be empty
  std::vector<std::string> files;  // absolute paths, in the order of the parts; the first is what
                                   // a loader opens
  std::vector<std::string> partial_files;
  size_t bytes = 0;  // all of these
  std::chrono::system_clock::time_point modified;
  bool is_whole = false;
};

class ModelStore {
 public:
  // The folder need not exist.
  explicit ModelStore(const std::string& folder);
  // $TRELLIS_MODELS_DIR, else "models" in $TRELLIS_CACHE, $XDG_CACHE_HOME/trellis or
  // ~/.cache/trellis: a cache, since all of it can be pulled again. ERRORS: kNotFound: none of them
  // is set.
  static Result<ModelStore> Open();

  const std::string& folder() const { return folder_; }

  // Where the file `path` of "user/repo" lies or will lie. ERRORS: kInvalidArgument: it would lie
  // outside.
  Result<std::string> PathOf(const std::string& repo, const std::string& path) const;
  // The same for what another URL ends in. ERRORS: kInvalidArgument: that is no GGUF file's name.
  Result<std::string> PathOfUrl(const std::string& url) const;

  // By name. ERRORS: kIo.
  Result<std::vector<StoredModel>> List() const;

  // The whole model that `name` means: a name that List gives; "user/repo" with or without a
  // quantisation (ChooseModel); or the file's name, with or without ".gguf", where only one model
  // has it. ERRORS: kNotFound, kInvalidArgument (it may be several, which are named), kIo.
  Result<StoredModel> Find(const std::string& name) const;

  // Removes the one model that `name` means, whole or not; for "user/repo" that has to be the only
  // one of it. Returns what it was. ERRORS: those of Find.
  Result<StoredModel> Remove(const std::string& name) const;

 private:
  std::string folder_;
};

}  // namespace trellis
