// PackCache: packed weights on disk, so that the next start maps them instead of packing them
// again.
//
// A file holds the image of one model's packed matrices. It is used only when its key equals the
// caller's, letter for letter, and each of its bytes still has its checksum (XXH3, on all threads);
// anything else is not there. It is written beside its place and renamed, so a reader finds a whole
// file or none, and programs that start at once do not disturb each other.
//
//   magic, version | sizes | checksum of this header | key | a checksum for each 2 MiB | image
//
// THREADS: none of its own; any number of processes. INVARIANT: nothing that happens to the folder
// is worse than packing again.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "base/status.h"
#include "os/compute_pool.h"
#include "os/mapped_file.h"

namespace trellis {

class PackCache {
 public:
  // What the files of the folder may take together, the one just written not counted.
  static constexpr size_t kMaxBytes = size_t{16} << 30;

  // The folder is made when something is first stored.
  explicit PackCache(std::string folder, size_t max_bytes = kMaxBytes)
      : folder_(std::move(folder)), max_bytes_(max_bytes) {}

  struct Image {
    MappedFile file;
    std::span<const std::byte> bytes;  // in `file`, 64-byte aligned
  };
  // The image stored under `key` if it is there, has `image_bytes` and is undamaged.
  std::optional<Image> Find(const std::string& key, size_t image_bytes, ComputePool& pool) const;

  // Stores `image` under `key` and deletes the files that were used least recently, as many as the
  // limit asks for. ERRORS: kResourceExhausted (too little space on the disk: at least as much as
  // the image again has to stay free), kIo; both name the folder.
  Status Store(const std::string& key, std::span<const std::byte> image, ComputePool& pool) const;

  // Where the image for `key` is or would be.
  std::string PathOf(const std::string& key) const;

 private:
  void Trim(const std::string& keep) const;

  const std::string folder_;
  const size_t max_bytes_;
};

}  // namespace trellis
