// GgufFile: the header of a GGUF model (v2, v3; possibly split over files) and its tensors, mapped
// into memory.
//
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; read by ggml's own gguf.h.
// What that does not check is checked here: every tensor lies inside its file and has a type and a
// size that can be read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "os/mapped_file.h"

struct gguf_context;

namespace trellis {

struct GgufTensor {
  std::string name;
  int32_t type = 0;     // enum ggml_type
  size_t depth = 0;     // ne[0]: elements of a row
  size_t num_rows = 0;  // ne[1] (1 for vectors)
  size_t row_bytes = 0;
  size_t file = 0;    // index of the split
  size_t offset = 0;  // in that file
  const std::byte* data = nullptr;

  size_t bytes() const { return row_bytes * num_rows; }
};

class GgufFile {
 public:
  // Opens `path` and, when it is "...-00001-of-0000N.gguf", the other splits beside it.
  // ERRORS: kNotFound, kIo, kDataLoss (not GGUF, truncated, a tensor outside the file),
  // kUnsupported (a tensor type), each naming the file.
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);
  ~GgufFile();

  const std::string& path() const { return path_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* Find(const std::string& name) const;  // null when there is none
  size_t file_bytes() const;                              // of all splits

  // Metadata of the first split; nothing when the key is absent or of another kind. Integers of
  // every width are read, floats only if they are finite.
  std::optional<uint64_t> Integer(const std::string& key) const;
  std::optional<float> Float(const std::string& key) const;
  std::optional<std::string> String(const std::string& key) const;
  // An array of bools or integers.
  std::optional<std::vector<bool>> Bools(const std::string& key) const;
  std::optional<size_t> ArrayLength(const std::string& key) const;

  // MappedFile::identity() of every split.
  std::string FileIdentity() const;

  // Tells the kernel that the tensor's bytes are no longer needed in memory.
  void DontNeed(const GgufTensor& tensor) const;

  // 128 bits over headers, sizes and samples of every tensor, as hex: equal for equal files, and
  // different, in practice, when any weight type, hyperparameter or training step differs. Reads a
  // few megabytes.
  std::string Fingerprint() const;

 private:
  struct Split {
    MappedFile file;
    gguf_context* header;
  };
  GgufFile() = default;
  Status AddSplit(const std::string& path);
  int64_t FindKey(const std::string& key) const;

  std::string path_;
  std::vector<Split> splits_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, size_t> by_name_;
};

}  // namespace trellis
