// trellis pull: a model from a hub or a URL.
#include "pull.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <vector>

#include "commands.h"
#include "console.h"
#include "flags.h"
#include "hub/download.h"
#include "hub/hub.h"
#include "hub/model_name.h"
#include "hub/model_store.h"
#include "interrupt.h"
#include "loading.h"

namespace trellis {
namespace {

// One line that is drawn again and again, on a terminal; nothing elsewhere.
class ProgressLine {
 public:
  explicit ProgressLine(std::string name) : name_(std::move(name)) {}
  ~ProgressLine() { Clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void Show(const char* verb, size_t done, size_t total) {
    if (isatty(STDERR_FILENO) == 0) return;
    const auto now = Clock::now();
    if (verb != verb_) verb_ = verb, begin_ = now, done_before_ = done;
    const bool is_end = total > 0 && done >= total;
    if (is_drawn_ && !is_end && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now, is_drawn_ = true;
    const std::chrono::duration<double> took = now - begin_;
    const double rate =
        took.count() > 0 ? static_cast<double>(done - done_before_) / took.count() : 0;
    Say("\r\033[K{} {} {} {}, {}/s", verb, name_, total > 0 ? Bar(done, total) : "",
        FormatBytes(done), FormatBytes(static_cast<size_t>(rate)));
  }
  // Makes room for another line.
  void Clear() {
    if (is_drawn_) Say("\r\033[K");
    is_drawn_ = false;
  }

 private:
  using Clock = std::chrono::steady_clock;
  const std::string name_;
  const char* verb_ = nullptr;
  size_t done_before_ = 0;
  Clock::time_point begin_, last_;
  bool is_drawn_ = false;
};

struct RemoteFile {
  std::string name, url, target;
};

Status Fetch(HttpClient& client, const RemoteFile& file, const std::string& token,
             const std::function<bool()>& is_cancelled) {
  ProgressLine line(file.name);
  size_t bytes = 0;
  const Patience patience{.is_cancelled = is_cancelled, .warn = [&](const std::string& what) {
                            line.Clear();
                            Say("{}\n", what);
                          }};
  const auto outcome =
      Download(client, {.url = file.url,
                        .token = token,
                        .target = file.target,
                        .patience = patience,
                        .progress = [&](const char* verb, size_t done, size_t total) {
                          bytes = done;
                          line.Show(verb, done, total);
                        }});
  line.Clear();
  if (outcome.ok()) {
    const bool was_there = *outcome == DownloadOutcome::kWasThere;
    Say("{} {}{}\n", was_there ? "already there:" : "pulled", file.target,
        bytes > 0 ? " (" + FormatBytes(bytes) + ")" : "");
    return Status::Ok();
  }
  if (outcome.status().code() == StatusCode::kCancelled) {
    return Status(StatusCode::kCancelled,
                  "interrupted; what came is kept, and pulling again goes on from there");
  }
  return outcome.status();
}

std::string HubUrl(const std::string& flag) {
  if (!flag.empty()) return flag;
  const char* endpoint = std::getenv("HF_ENDPOINT");
  return endpoint != nullptr && *endpoint != 0 ? endpoint : kDefaultHub;
}

// The files of a hub's model.
Result<std::vector<RemoteFile>> FilesOf(const ModelReference& reference, Hub& hub,
                                        const ModelStore& store, const Patience& patience) {
  TRELLIS_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                           hub.ListFiles(reference.repo, patience));
  const auto chosen = ChooseModel(all, reference.quant);
  if (!chosen.ok()) {
    return Status(chosen.status().code(),
                  fmt::format("{}: {}", reference.repo, chosen.status().message()));
  }
  std::vector<RemoteFile> files;
  for (const std::string& path : *chosen) {
    TRELLIS_ASSIGN_OR_RETURN(std::string target, store.PathOf(reference.repo, path));
    files.push_back({path, hub.UrlOf(reference.repo, path), std::move(target)});
  }
  return files;
}

Result<std::string> PullFiles(const std::string& what, const std::string& hub_url,
                              const std::function<bool()>& is_cancelled) {
  TRELLIS_ASSIGN_OR_RETURN(const ModelStore store, ModelStore::Open());
  HttpClient client;
  Hub hub(client, hub_url, HubTokenFromEnvironment());
  std::vector<RemoteFile> files;
  if (const auto reference = ParseModelReference(what)) {
    const Patience patience{.is_cancelled = is_cancelled,
                            .warn = [](const std::string& line) { Say("{}\n", line); }};
    TRELLIS_ASSIGN_OR_RETURN(files, FilesOf(*reference, hub, store, patience));
  } else if (!OriginOf(what).empty()) {
    TRELLIS_ASSIGN_OR_RETURN(std::string target, store.PathOfUrl(what));
    files.push_back({target.substr(target.rfind('/') + 1), what, target});
  } else {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("'{}' is neither USER/REPO[:QUANTISATION] nor a URL", what));
  }
  for (const RemoteFile& file : files) {
    const bool is_of_hub = OriginOf(file.url) == OriginOf(hub_url);
    TRELLIS_RETURN_IF_ERROR(Fetch(client, file, is_of_hub ? hub.token() : "", is_cancelled));
  }
  return files[0].target;
}

}  // namespace

Result<std::string> Pull(const std::string& what, const std::string& hub,
                         const std::function<bool()>& is_cancelled) {
  Result<std::string> pulled = PullFiles(what, HubUrl(hub), is_cancelled);
  if (pulled.ok() || pulled.status().code() != StatusCode::kUnauthenticated) return pulled;
  // A hub does not tell a stranger what there is.
  const char* hint = HubTokenFromEnvironment().empty()
                         ? "there is no such model, or it takes a token that may read it: set "
                           "HF_TOKEN"
                         : "the token (HF_TOKEN) may not read it, or there is no such model; a "
                           "gated one wants its terms accepted on its page";
  return Status(pulled.status().code(), fmt::format("{}: {}", pulled.status().message(), hint));
}

void AddPull(CLI::App& app, int* exit_status) {
  struct Flags {
    std::string what, hub;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* pull = app.add_subcommand("pull", "Fetch a model from a hub or a URL");
  pull->add_option("model", flags->what,
                   "A hub's USER/REPO[:QUANTISATION] (without one Q4_K_M, else Q8_0, else the "
                   "first), or the URL of a GGUF file")
      ->required()
      ->type_name("MODEL");
  AddHubFlag(pull, &flags->hub);
  pull->callback([flags, exit_status] {
    const InterruptCatcher interrupt(InterruptCatcher::Second::kEndsTheProcess);
    const auto pulled = Pull(flags->what, flags->hub, InterruptCatcher::HasCaught);
    *exit_status = ExitStatusOf(pulled.status());
  });
}

}  // namespace trellis
