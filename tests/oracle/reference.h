// Logits by libllama, through the program llama_reference.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/types.h"
#include "os/mapped_file.h"

namespace trellis {

// [tokens, vocab] f32, in a mapped file.
class LogitsFile {
 public:
  LogitsFile(MappedFile file, size_t num_rows) : file_(std::move(file)), num_rows_(num_rows) {}
  size_t vocab_size() const { return file_.bytes().size() / sizeof(float) / num_rows_; }
  const float* row(size_t r) const {
    return reinterpret_cast<const float*>(file_.bytes().data()) + r * vocab_size();
  }

 private:
  MappedFile file_;
  size_t num_rows_;
};

// Runs libllama on one model and text. Its files lie in `folder` and go with the object.
class Reference {
 public:
  Reference(std::string model, std::vector<TokenId> tokens, std::filesystem::path folder);
  ~Reference();

  // With llama_reference's `options`. May be called from several threads, with a `name` each.
  Result<LogitsFile> Logits(const std::string& name, const std::vector<std::string>& options) const;

  // Of the whole text: [embedding length]. `pooling`: "mean" or "last".
  Result<std::vector<float>> Embedding(const std::string& pooling) const;

  // What the model's bytes mean when nothing else is rounded: its weights dequantised to f32, f32
  // activations, keys and values.
  Result<LogitsFile> Truth() const;

  // The same, kept as `name` in `cache`, as it takes long for a real model. `fingerprint` stands
  // for the model.
  Result<LogitsFile> CachedTruth(const std::filesystem::path& cache, const std::string& name,
                                 const std::string& fingerprint) const;

 private:
  Status WriteTruth(const std::filesystem::path& out) const;
  Status WriteLogits(const std::string& model, const std::filesystem::path& out,
                     const std::vector<std::string>& options) const;
  Result<LogitsFile> Open(const std::filesystem::path& path) const;

  const std::string model_;
  const std::vector<TokenId> tokens_;
  const std::filesystem::path folder_;
};

}  // namespace trellis
