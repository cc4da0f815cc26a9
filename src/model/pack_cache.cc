#include "model/pack_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <vector>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace trellis {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunk = size_t{2} << 20;
constexpr size_t kAlignment = 4096;  // of the image in the file
constexpr char kMagic[16] = "trellis packed1";
constexpr const char* kSuffix = ".packed";
constexpr const char* kUnfinished = ".unfinished";

struct Header {
  char magic[16];
  uint64_t key_bytes, image_bytes, image_offset;
  uint64_t checksum;  // of the rest of the header, the key and the chunks' checksums
};

size_t NumChunks(size_t image_bytes) {
  return (image_bytes + kChunk - 1) / kChunk;
}

uint64_t ChunkChecksum(std::span<const std::byte> image, size_t chunk) {
  const auto bytes = image.subspan(chunk * kChunk);
  return XXH3_64bits(bytes.data(), std::min(kChunk, bytes.size()));
}

// Everything before the image, its checksum still to be filled in.
std::vector<std::byte> MakeFront(const std::string& key, size_t image_bytes,
                                 const std::vector<uint64_t>& checksums) {
  const size_t sums_bytes = checksums.size() * sizeof(uint64_t);
  const size_t used = sizeof(Header) + key.size() + sums_bytes;
  std::vector<std::byte> front((used + kAlignment - 1) / kAlignment * kAlignment);
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.key_bytes = key.size(), header.image_bytes = image_bytes;
  header.image_offset = front.size();
  std::memcpy(front.data(), &header, sizeof(header));
  std::memcpy(front.data() + sizeof(header), key.data(), key.size());
  if (sums_bytes > 0)
    std::memcpy(front.data() + sizeof(header) + key.size(), checksums.data(), sums_bytes);
  header.checksum = XXH3_64bits(front.data(), front.size());
  std::memcpy(front.data(), &header, sizeof(header));
  return front;
}

// A file being written; deleted unless it was put in its place.
class Unfinished {
 public:
  explicit Unfinished(const std::string& path)
      : path_(fmt::format("{}.{}{}", path, getpid(), kUnfinished)),
        fd_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) {}
  ~Unfinished() {
    if (fd_ < 0) return;
    close(fd_);
    if (!placed_) unlink(path_.c_str());
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  bool is_open() const { return fd_ >= 0; }
  // 0 or errno.
  int Write(std::span<const std::byte> bytes, size_t offset) const {
    while (!bytes.empty()) {
      const ssize_t n = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : ENOSPC;
      bytes = bytes.subspan(static_cast<size_t>(n)), offset += static_cast<size_t>(n);
    }
    return 0;
  }
  int Place(const std::string& path) {
    if (rename(path_.c_str(), path.c_str()) != 0) return errno;
    placed_ = true;
    return 0;
  }

 private:
  const std::string path_;
  const int fd_;
  bool placed_ = false;
};

}  // namespace

std::string PackCache::PathOf(const std::string& key) const {
  const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  return fmt::format("{}/{:016x}{:016x}{}", folder_, hash.high64, hash.low64, kSuffix);
}

std::optional<PackCache::Image> PackCache::Find(const std::string& key, size_t image_bytes,
                                                ComputePool& pool) const {
  const std::string path = PathOf(key);
  Result<MappedFile> file = MappedFile::Open(path);
  if (!file.ok()) return std::nullopt;
  file.value().WillReadOften();
  const std::span<const std::byte> bytes = file.value().bytes();
  std::vector<uint64_t> checksums(NumChunks(image_bytes));
  const size_t front_bytes = MakeFront(key, image_bytes, checksums).size();
  if (bytes.size() != front_bytes + image_bytes) return std::nullopt;
  // The checksums are whatever the file says; the front that they make must be the file's.
  if (!checksums.empty())
    std::memcpy(checksums.data(), bytes.data() + sizeof(Header) + key.size(),
                checksums.size() * sizeof(uint64_t));
  const std::vector<std::byte> front = MakeFront(key, image_bytes, checksums);
  if (!std::equal(front.begin(), front.end(), bytes.begin())) return std::nullopt;
  const std::span<const std::byte> image = bytes.subspan(front_bytes);
  std::atomic<bool> damaged{false};
  pool.ParallelFor(checksums.size(), [&](size_t chunk, size_t) {
    if (ChunkChecksum(image, chunk) != checksums[chunk]) damaged = true;
  });
  if (damaged) return std::nullopt;
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);  // used just now; a read-only folder has no order
  return Image{std::move(file).value(), image};
}

Status PackCache::Store(const std::string& key, std::span<const std::byte> image,
                        ComputePool& pool) const {
  const auto failed = [this](int error) {
    const bool full = error == ENOSPC || error == EDQUOT;
    return Status(full ? StatusCode::kResourceExhausted : StatusCode::kIo,
                  fmt::format("{}: {}", folder_, std::strerror(error)));
  };
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) return failed(error.value());
  const fs::space_info space = fs::space(folder_, error);
  if (!error && space.available / 2 < image.size()) return failed(ENOSPC);
  const std::string path = PathOf(key);
  Unfinished file(path);
  if (!file.is_open()) return failed(errno);
  std::vector<uint64_t> checksums(NumChunks(image.size()));
  const size_t front_bytes = MakeFront(key, image.size(), checksums).size();
  std::atomic<int> write_error{0};
  pool.ParallelFor(checksums.size(), [&](size_t chunk, size_t) {
    if (write_error != 0) return;
    checksums[chunk] = ChunkChecksum(image, chunk);
    const auto bytes = image.subspan(chunk * kChunk);
    const int result =
        file.Write(bytes.first(std::min(kChunk, bytes.size())), front_bytes + chunk * kChunk);
    if (result != 0) write_error = result;
  });
  if (write_error == 0) write_error = file.Write(MakeFront(key, image.size(), checksums), 0);
  // Not synchronised with the disk: what a power failure leaves fails its checksums.
  if (write_error == 0) write_error = file.Place(path);
  if (write_error != 0) return failed(write_error);
  Trim(path);
  return Status::Ok();
}

void PackCache::Trim(const std::string& keep) const {
  struct Entry {
    fs::path path;
    fs::file_time_type used;
    size_t bytes;
  };
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    std::error_code gone;  // another process may trim too
    const fs::file_time_type used = fs::last_write_time(path, gone);
    const size_t bytes = gone ? 0 : fs::file_size(path, gone);
    if (gone) continue;
    if (path.extension() == kUnfinished) {  // of a process that was killed
      if (fs::file_time_type::clock::now() - used > std::chrono::hours(1)) fs::remove(path, gone);
    } else if (path.extension() == kSuffix && path != keep) {
      entries.push_back({path, used, bytes});
    }
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.used > b.used; });
  size_t total = 0;
  for (const Entry& entry : entries) {
    total += entry.bytes;
    if (total > max_bytes_) fs::remove(entry.path, error);
  }
}

}  // namespace trellis
