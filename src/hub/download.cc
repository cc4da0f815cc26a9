#include "hub/download.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "hub/sha256.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;
using Answer = HttpClient::Answer;

constexpr std::chrono::seconds kLongestSilence{60};

Status CannotWrite(const std::string& path, int error) {
  return Status(StatusCode::kIo, fmt::format("cannot write {}: {}", path, std::strerror(error)));
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

// Held until the file is closed. ERRORS: kIo, kCancelled.
Status Lock(const File& file, const std::string& path, const Patience& patience) {
  bool has_warned = false;
  while (flock(file.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return CannotWrite(path, errno);
    if (!has_warned) patience.warn("another pull into this folder is running: waiting for it");
    has_warned = true;
    if (patience.is_cancelled()) return Status(StatusCode::kCancelled, "interrupted");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return Status::Ok();
}

size_t ReadNumber(std::string_view text) {
  size_t number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// Of a strong or weak ETag, what is between the quotes.
std::string Unquoted(std::string tag) {
  if (tag.starts_with("W/")) tag = tag.substr(2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') {
    tag = tag.substr(1, tag.size() - 2);
  }
  return tag;
}

bool IsSha256(const std::string& tag) {
  return tag.size() == 64 && std::all_of(tag.begin(), tag.end(), [](unsigned char c) {
           return std::isdigit(c) != 0 || (c >= 'a' && c <= 'f');
         });
}

// What each GGUF file begins with.
constexpr std::string_view kMagic = "GGUF";

// Of "bytes FIRST-LAST/SIZE" (RFC 9110, 14.4).
struct ContentRange {
  size_t first = 0;
  std::optional<size_t> size;  // "*": not said
};
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return std::nullopt;
  text.remove_prefix(kUnit.size());
  ContentRange range;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), range.first);
  const size_t slash = text.find('/');
  if (error != std::errc() || *end != '-' || slash == text.npos) return std::nullopt;
  if (text.substr(slash + 1) != "*") range.size = ReadNumber(text.substr(slash + 1));
  return range;
}

// What the server has, as far as it says so.
struct RemoteFile {
  size_t size = 0;      // 0: unknown
  std::string etag;     // for If-Range; empty: its digest says more, or it has no strong one
  std::string version;  // empty: unknown
  std::string sha256;   // empty: unknown
};

class Downloader {
 public:
  Downloader(HttpClient& client, const DownloadOptions& options)
      : client_(client), options_(options) {}

  Result<DownloadOutcome> Run() {
    const std::string folder = fs::path(options_.target).parent_path().string();
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return CannotWrite(folder, error.value());
    const std::string lock_path = folder + "/.lock";
    const File lock(open(lock_path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (lock.fd() < 0) return CannotWrite(lock_path, errno);
    TRELLIS_RETURN_IF_ERROR(Lock(lock, lock_path, options_.patience));
    TRELLIS_RETURN_IF_ERROR(Describe());
    TRELLIS_ASSIGN_OR_RETURN(const bool was_there, IsThere());
    if (was_there) return DownloadOutcome::kWasThere;
    RemoveOtherPartials(folder);
    const File file(open(partial_.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
    if (file.fd() < 0) return CannotWrite(partial_, errno);
    TRELLIS_RETURN_IF_ERROR(Resume(file));
    Status fetched = CheckRoom(folder);
    if (fetched.ok()) fetched = Fetch(file);
    if (done_ == 0) unlink(partial_.c_str());  // there is nothing to go on with
    TRELLIS_RETURN_IF_ERROR(fetched);
    TRELLIS_RETURN_IF_ERROR(Finish(file));
    return DownloadOutcome::kFetched;
  }

 private:
  HttpClient::Request NewRequest(HttpClient::Method method) const {
    return {.method = method,
            .url = options_.url,
            .token = options_.token,
            .longest_silence = kLongestSilence,
            .is_cancelled = options_.patience.is_cancelled};
  }

  // A hub describes the file in its redirect to a store, which may answer GET alone.
  Status Describe() {
    TRELLIS_ASSIGN_OR_RETURN(const Answer answer, SendPatiently(client_, options_.patience, [&] {
                               HttpClient::Request head = NewRequest(HttpClient::Method::kHead);
                               head.is_answer = [](const HttpClient::Headers& headers) {
                                 return headers.count("x-linked-etag") > 0;
                               };
                               return head;
                             }));
    const bool is_linked = !answer.header("x-linked-etag").empty();
    const bool refuses_head = answer.status == 405 || answer.status == 501;
    if (!answer.ok() && !is_linked && !refuses_head) return ErrorOf(answer);
    if (!refuses_head) {
      const char* etag = is_linked ? "x-linked-etag" : "etag";
      remote_.version = Unquoted(answer.header(etag));
      remote_.size = ReadNumber(answer.header(is_linked ? "x-linked-size" : "content-length"));
      if (is_linked && IsSha256(remote_.version)) remote_.sha256 = remote_.version;
      // A hub's is not its store's. A weak one stands for other bytes too.
      const std::string& tag = answer.header(etag);
      if (!is_linked && tag.starts_with('"')) remote_.etag = tag;
    }
    NamePartial();
    return Status::Ok();
  }

  // What is there of one version is never gone on with for another.
  void NamePartial() {
    Sha256 key;
    key.Update(remote_.version);
    partial_ = options_.target + "." + key.HexDigest().substr(0, 12) + ".partial";
  }

  Result<bool> IsThere() {
    const File file(open(options_.target.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat info = {};
    if (file.fd() < 0 || fstat(file.fd(), &info) != 0) return false;
    if (remote_.size == 0 || static_cast<size_t>(info.st_size) != remote_.size) return false;
    if (remote_.sha256.empty()) return true;
    Sha256 digest;
    TRELLIS_RETURN_IF_ERROR(Digest(file, options_.target, &digest).status());
    return digest.HexDigest() == remote_.sha256;
  }

  // All bytes of `file` from its beginning on; returns how many.
  Result<size_t> Digest(const File& file, const std::string& path, Sha256* digest) {
    std::vector<char> buffer(1 << 20);
    size_t done = 0;
    for (;;) {
      const ssize_t got = pread(file.fd(), buffer.data(), buffer.size(), static_cast<off_t>(done));
      if (got < 0) {
        return Status(StatusCode::kIo,
                      fmt::format("cannot read {}: {}", path, std::strerror(errno)));
      }
      if (got == 0) return done;
      digest->Update({buffer.data(), static_cast<size_t>(got)});
      done += static_cast<size_t>(got);
      options_.progress("checking", done, remote_.size);
      if (options_.patience.is_cancelled()) return Status(StatusCode::kCancelled, "interrupted");
    }
  }

  // Those of other versions.
  void RemoveOtherPartials(const std::string& folder) const {
    const std::string start = fs::path(options_.target).filename().string() + ".";
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(start) && name.ends_with(".partial") && entry.path() != partial_) {
        fs::remove(entry.path(), error);
      }
    }
  }

  // To go on it takes a way to know that the bytes are of the same file.
  bool CanResume() const { return !remote_.sha256.empty() || !remote_.etag.empty(); }

  Status Resume(const File& file) {
    if (!CanResume() || remote_.size == 0) return Restart(file);
    TRELLIS_ASSIGN_OR_RETURN(done_, Digest(file, partial_, &digest_));
    return done_ > remote_.size ? Restart(file) : Status::Ok();
  }

  Status Restart(const File& file) {
    done_ = 0;
    digest_ = Sha256();
    return ftruncate(file.fd(), 0) == 0 ? Status::Ok() : CannotWrite(partial_, errno);
  }

  Status CheckRoom(const std::string& folder) const {
    std::error_code error;
    const fs::space_info space = fs::space(folder, error);
    const size_t needed = remote_.size - std::min(done_, remote_.size);
    if (error || needed <= space.available) return Status::Ok();
    return Status(StatusCode::kResourceExhausted,
                  fmt::format("{}: {} more bytes are needed, and {} are free", folder, needed,
                              space.available));
  }

  Status Fetch(const File& file) {
    if (remote_.size > 0 && done_ == remote_.size) return Status::Ok();
    constexpr int kRangeNotSatisfiable = 416;
    TRELLIS_ASSIGN_OR_RETURN(Answer answer, Get(file));
    if (answer.status == kRangeNotSatisfiable && done_ > 0) {
      TRELLIS_RETURN_IF_ERROR(Restart(file));
      TRELLIS_ASSIGN_OR_RETURN(answer, Get(file));
    }
    if (!answer.ok()) return ErrorOf(answer);
    return done_ < kMagic.size() ? NoGguf(file) : Status::Ok();
  }

  Result<Answer> Get(const File& file) {
    return SendPatiently(client_, options_.patience, [&] {
      HttpClient::Request get = NewRequest(HttpClient::Method::kGet);
      get.offset = CanResume() ? done_ : 0;
      get.if_range = remote_.etag;
      get.on_body = [&, is_first = true](const Answer& so_far, std::string_view bytes) mutable {
        if (std::exchange(is_first, false)) TRELLIS_RETURN_IF_ERROR(Begin(file, so_far));
        return Write(file, bytes);
      };
      return get;
    });
  }

  // Looks where the bytes that come now belong. ERRORS: kUnavailable: nowhere; what was there is
  // given up, so that the next try begins at the beginning.
  Status Begin(const File& file, const Answer& answer) {
    constexpr int kPartialContent = 206;
    const std::string& tag = answer.header("etag");
    const bool is_other = !remote_.etag.empty() && !tag.empty() && tag != remote_.etag;
    // The server begins at the beginning, wherever we wanted it to.
    if (answer.status != kPartialContent) {
      if (is_other) TRELLIS_RETURN_IF_ERROR(TakeVersion(answer));
      return Restart(file);
    }
    const std::string& text = answer.header("content-range");
    const auto range = ParseContentRange(text);
    const bool has_size = range && range->size && remote_.size > 0;
    if (!is_other && range && range->first == done_ && (!has_size || *range->size == remote_.size))
      return Status::Ok();
    const size_t wanted = done_;
    TRELLIS_RETURN_IF_ERROR(Restart(file));
    return Status(StatusCode::kUnavailable,
                  fmt::format("{} was asked for byte {} on and sends '{}': beginning anew",
                              WithoutSecrets(options_.url), wanted, text));
  }

  // Of what comes, where it is not what was described.
  Status TakeVersion(const Answer& answer) {
    const std::string before = partial_;
    const std::string& tag = answer.header("etag");
    remote_.version = Unquoted(tag);
    remote_.etag = tag.starts_with('"') ? tag : "";
    remote_.size = ReadNumber(answer.header("content-length"));
    NamePartial();
    return std::rename(before.c_str(), partial_.c_str()) == 0 ? Status::Ok()
                                                              : CannotWrite(partial_, errno);
  }

  Status NoGguf(const File& file) {
    TRELLIS_RETURN_IF_ERROR(Restart(file));
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("{} is no GGUF file", WithoutSecrets(options_.url)));
  }

  Status Write(const File& file, std::string_view bytes) {
    // They may come one by one.
    if (done_ < kMagic.size()) {
      const size_t n = std::min(kMagic.size() - done_, bytes.size());
      if (bytes.substr(0, n) != kMagic.substr(done_, n)) return NoGguf(file);
    }
    for (size_t written = 0; written < bytes.size();) {
      const ssize_t n = pwrite(file.fd(), bytes.data() + written, bytes.size() - written,
                               static_cast<off_t>(done_ + written));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return CannotWrite(partial_, errno);
      written += static_cast<size_t>(n);
    }
    digest_.Update(bytes);
    done_ += bytes.size();
    options_.progress("pulling", done_, remote_.size);
    return Status::Ok();
  }

  Status Finish(const File& file) {
    if (remote_.size > 0 && done_ != remote_.size) {
      return Discard(
          fmt::format("{} bytes came, and the server says it has {}", done_, remote_.size));
    }
    const std::string digest = digest_.HexDigest();
    if (!remote_.sha256.empty() && digest != remote_.sha256) {
      return Discard(fmt::format("its SHA-256 is {}, and the hub says {}", digest, remote_.sha256));
    }
    if (fsync(file.fd()) != 0) return CannotWrite(partial_, errno);
    if (std::rename(partial_.c_str(), options_.target.c_str()) != 0) {
      return CannotWrite(options_.target, errno);
    }
    return Status::Ok();
  }

  Status Discard(const std::string& why) const {
    std::error_code error;
    fs::remove(partial_, error);
    return Status(StatusCode::kUnavailable,
                  fmt::format("{}: {}; what came was removed, so try again",
                              WithoutSecrets(options_.url), why));
  }

  HttpClient& client_;
  const DownloadOptions& options_;
  RemoteFile remote_;
  std::string partial_;
  size_t done_ = 0;  // bytes in the partial file
  Sha256 digest_;    // of these
};

}  // namespace

Result<DownloadOutcome> Download(HttpClient& client, const DownloadOptions& options) {
  return Downloader(client, options).Run();
}

}  // namespace trellis
