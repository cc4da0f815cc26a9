// Download: a file from a URL, whole and verified or not at all.
//
// While it comes it is beside its place as NAME.KEY.partial; KEY stands for the version that the
// server has (its ETag), so that an interrupted download goes on with the same bytes or begins
// anew. Only the whole file, with the SHA-256 that a hub says it has, gets its name.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "hub/http_client.h"
#include "hub/patience.h"

namespace trellis {

struct DownloadOptions {
  std::string url;
  std::string token = {};  // see HttpClient::Request
  std::string target;      // its folder is made
  Patience patience;
  // `verb` says what is done to the bytes: "pulling", "checking". `total` is 0 if nobody knows.
  std::function<void(const char* verb, size_t done, size_t total)> progress;
};

enum class DownloadOutcome {
  kFetched,
  kWasThere,  // the same file: its size, and its SHA-256 where the hub says that
};

// Waits for another download into the same folder, of whatever process.
// ERRORS: those of SendPatiently and ErrorOf; kCancelled: the partial file is kept. kIo: the file
// cannot be written; kept too. kResourceExhausted: the disk has no room for it. kUnavailable: it
// was not what the server said (size, SHA-256), and is removed. kInvalidArgument: it is no GGUF
// file.
Result<DownloadOutcome> Download(HttpClient& client, const DownloadOptions& options);

}  // namespace trellis
