// Server: HTTP on top of the models of a pool. One coroutine per connection on a few I/O threads; a
// waiting stream costs no thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "server/api_keys.h"
#include "server/log.h"
#include "server/model_pool.h"
#include "server/origins.h"

namespace trellis {

class Server {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    uint16_t port = 8080;  // 0: any free one
    ApiKeys keys;          // none: everybody who reaches the port may use it
    std::string key_file;  // where they are from; SIGHUP reads it again. Empty: SIGHUP is not ours
    OriginPolicy origins;
    LogFormat log_format = LogFormat::kText;
    bool log_prompts = false;
    bool has_page = true;  // at /
    size_t num_threads = 2;
    size_t max_body_bytes = 32u << 20;
    // A stream with nothing to say says so this often, so that proxies do not give up on it.
    std::chrono::milliseconds keep_alive_interval{15'000};
    std::chrono::seconds idle_timeout{75};  // between requests
    std::chrono::seconds header_timeout{
        20};  // from a request's first byte to the end of its headers
    // A body has so long, and a second more for each min_body_rate bytes of it that are there.
    std::chrono::seconds body_timeout{20};
    size_t min_body_rate = 16 * 1024;
    std::chrono::seconds write_timeout{30};  // a client that takes nothing for so long is cut off
    size_t max_connections = 4096;           // more wait until one of them is closed
    std::chrono::milliseconds drain_timeout{30000};
  };
  // Binds and listens; raises the process's limit of open files. ERRORS: kIo (address in use, ...),
  // kInvalidArgument (host).
  static Result<std::unique_ptr<Server>> Create(const Options& options);
  ~Server();

  uint16_t port() const;
  LoadProgress& load_progress();

  // From now on requests are served. Once; from any thread.
  void SetModels(std::unique_ptr<ModelPool> models);

  // Serves until SIGINT, SIGTERM or Stop(): then takes no new work, lets running answers finish
  // within drain_timeout, and returns. A second signal ends the process at once. Once.
  void Run();
  void Stop();
  // Reads Options::key_file again; logs what has come of it. From now on its keys count; requests
  // that were let in go on. An error leaves the keys as they are. From any thread.
  Status ReloadKeys();

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trellis
