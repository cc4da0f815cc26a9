// MappedFile: a whole file, read-only, in the address space.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/status.h"

namespace trellis {

// Move-only. Immutable; any thread may read. A file that shrinks while mapped is the user's doing
// (SIGBUS), as with every program that maps its models.
class MappedFile {
 public:
  // ERRORS: kNotFound, kIo (a directory, no permission, ...), naming the path.
  static Result<MappedFile> Open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  // Which file it is, and in which state: another text when the file at the path was replaced or
  // written to since.
  const std::string& identity() const { return identity_; }

  // Says that all of it will be read again and again: on huge pages, where the file system has
  // them.
  void WillReadOften() const;

  // Gives the whole pages inside the range back to the kernel; reading them later reads the file
  // again.
  void DontNeed(size_t offset, size_t size) const;

 private:
  MappedFile(std::string path, std::string identity, const std::byte* data, size_t size);

  std::string path_, identity_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace trellis
