// trellis serve: the HTTP server.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <thread>

#include "commands.h"
#include "console.h"
#include "flags.h"
#include "hub/model_store.h"
#include "loading.h"
#include "model_folder.h"
#include "models.h"
#include "os/machine.h"
#include "server/model_pool.h"
#include "server/server.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  Server::Options server;
  std::string alias;
  std::string models_dir, models_memory;
  std::string api_key_file;
  int drain_seconds = 30;
  std::string log_format = "text";
  bool no_page = false;
  bool no_prefix_cache = false;
  bool no_auth = false;
  std::string eviction_policy{EvictionPolicyName(EvictionPolicyKind::kLru)};
};

LogFormat LogFormatOf(const Flags& flags) {
  return flags.log_format == "json" ? LogFormat::kJson : LogFormat::kText;
}

bool NamesModel(const ModelOptions& model) {
  return !model.path.empty() || !model.hf_repo.empty();
}

// The folder of --models-dir; without it that of pulled models, which has to have one.
Result<ModelStore> StoreOf(const Flags& flags) {
  if (!flags.models_dir.empty()) {
    std::error_code error;
    if (std::filesystem::is_directory(flags.models_dir, error)) return ModelStore(flags.models_dir);
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("--models-dir {}: there is no such folder", flags.models_dir));
  }
  TRELLIS_ASSIGN_OR_RETURN(ModelStore store, ModelStore::Open());
  TRELLIS_ASSIGN_OR_RETURN(const std::vector<StoredModel> models, store.List());
  if (std::any_of(models.begin(), models.end(), [](const auto& it) { return it.is_whole; }))
    return store;
  return Status(StatusCode::kInvalidArgument,
                fmt::format("there is no model in {} to serve: pull one (trellis pull), or give "
                            "one with --model or -hf USER/REPO[:QUANT]",
                            store.folder()));
}

using Progress = std::function<void(size_t done, size_t total)>;

Result<std::unique_ptr<ModelPool>> LoadOne(const Flags& flags, const Progress& progress) {
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Service> service, LoadService(flags.model, progress));
  service->model_name = flags.alias.empty() ? NameOfFile(flags.model.path) : flags.alias;
  return std::make_unique<ModelPool>(std::move(service));
}

// With the model of -m or -hf loaded, if there is one.
Result<std::unique_ptr<ModelPool>> OpenFolder(const Flags& flags, ModelStore store,
                                              const Progress& progress) {
  size_t memory = AvailableMemoryBytes();
  if (!flags.models_memory.empty()) {
    TRELLIS_ASSIGN_OR_RETURN(memory, ParseBytes(flags.models_memory));
  }
  const std::string folder = store.folder();
  ModelPool::Options options{.memory_bytes = memory,
                             .max_waiting = flags.model.max_queue,
                             .default_model = {},
                             .log = Log(LogFormatOf(flags))};
  auto source = std::make_unique<ModelFolder>(
      std::move(store),
      ModelFolder::Options{
          .model = flags.model, .name = flags.alias, .memory_bytes = memory, .progress = progress});
  if (NamesModel(flags.model)) {
    TRELLIS_ASSIGN_OR_RETURN(options.default_model, source->NameOfPath());
  }
  TRELLIS_ASSIGN_OR_RETURN(const std::vector<ModelInfo> models, source->List());
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<ModelPool> pool,
                           ModelPool::Create(std::move(source), options));
  if (models.empty()) Say("warning: there is no model in {} yet\n", folder);
  Say("{} models of {} are loaded when they are asked for, into {} together (--models-memory)\n",
      models.size(), folder, FormatBytes(memory));
  if (options.default_model.empty()) return pool;
  TRELLIS_ASSIGN_OR_RETURN(const ModelInfo first, pool->Find(options.default_model));
  std::promise<Status> loaded;
  pool->Request(first, "",
                [&](const Result<ModelLease>& lease) { loaded.set_value(lease.status()); });
  TRELLIS_RETURN_IF_ERROR(loaded.get_future().get());
  return pool;
}

// Who reads lines of JSON gets nothing else: neither a bar of progress nor an empty line.
void LogSaid(const Log& log, std::string_view text) {
  if (text.starts_with('\r')) return;
  while (text.ends_with('\n')) text.remove_suffix(1);
  constexpr std::string_view kWarning = "warning: ", kName = "trellis: ";
  if (text.starts_with(kWarning)) {
    log.Warning("warning", {{"message", text.substr(kWarning.size())}});
  } else if (text.starts_with(kName)) {
    log.Error("failed", {{"message", text.substr(kName.size())}});
  } else if (!text.empty()) {
    log.Info("said", {{"message", text}});
  }
}

// Whether they name models that can be served. ERRORS: kInvalidArgument.
Status CheckModels(const Flags& flags) {
  if (NamesModel(flags.model)) return CheckModelIsNamed(flags.model);
  if (flags.alias.empty()) return Status::Ok();
  return Status(
      StatusCode::kInvalidArgument,
      fmt::format("--alias {}: it is a name for the model of --model or -hf", flags.alias));
}

// Reads the keys. ERRORS: kInvalidArgument.
Result<Server::Options> ServerOptions(const Flags& flags) {
  Server::Options options = flags.server;
  options.log_format = LogFormatOf(flags);
  options.drain_timeout = std::chrono::seconds(flags.drain_seconds);
  options.has_page = !flags.no_page;
  if (!flags.api_key_file.empty()) {
    Result<ApiKeys> keys = ApiKeys::Read(flags.api_key_file);
    if (!keys.ok()) {
      return Status(StatusCode::kInvalidArgument,
                    fmt::format("--api-key-file: {}", keys.status().message()));
    }
    options.keys = std::move(*keys);
    options.key_file = flags.api_key_file;
  }
  const bool is_open = options.keys.empty() && !IsLoopback(options.host);
  if (is_open && !flags.no_auth) {
    return Status(
        StatusCode::kInvalidArgument,
        fmt::format("--host {}: whoever reaches this address could use the model. Give keys "
                    "(--api-key-file), or say that this is wanted (--no-auth)",
                    options.host));
  }
  // Without keys the name is all that tells what pages with a name of their own send.
  const bool has_names = !options.origins.hosts.empty();
  options.origins.needs_local_host = options.keys.empty() && (!is_open || has_names);
  return options;
}

void SayListening(const Flags& flags, const Server& server) {
  const std::string& host = flags.server.host;
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const std::string url =
      fmt::format("http://{}:{}", is_ipv6 ? "[" + host + "]" : host, server.port());
  if (LogFormatOf(flags) == LogFormat::kJson)
    return Log(LogFormat::kJson).Info("listening", {{"url", url}});
  Say("listening on {0}\n{1}  curl {0}/v1/chat/completions -H 'Content-Type: application/json' "
      "\\\n"
      "    -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Say "
      "hello.\"}}],\"max_tokens\":64}}'\n",
      url, flags.no_page ? "" : fmt::format("  open {}/ in a browser, or\n", url));
}

// Loads the models on a thread of its own, while the server says how far it is.
class Loading {
 public:
  Loading(const Flags& flags, std::optional<ModelStore> store, Server& server)
      : flags_(flags), store_(std::move(store)), server_(server), thread_([this] { Run(); }) {}

  // Once the server has ended. Does not return where there would be loading to wait for.
  int End() {
    if (!is_over_) std::_Exit(0);
    thread_.join();
    if (pool_ != nullptr && pool_->is_loading()) std::_Exit(status_);
    return status_;
  }

 private:
  void Run() {
    Result<std::unique_ptr<ModelPool>> pool = Load();
    if (!pool.ok()) {
      status_ = ExitStatusOf(pool.status());
      is_over_ = true;
      return server_.Stop();
    }
    pool_ = pool->get();
    server_.SetModels(std::move(*pool));
    is_over_ = true;
    SayListening(flags_, server_);
  }

  Result<std::unique_ptr<ModelPool>> Load() {
    const auto progress = [this](size_t done, size_t total) {
      server_.load_progress().done = done;
      server_.load_progress().total = total;
    };
    try {
      // Whoever stops the server meanwhile ends the process; a partial file stays.
      if (NamesModel(flags_.model))
        TRELLIS_RETURN_IF_ERROR(ResolveModel(&flags_.model, [] { return false; }));
      return store_ ? OpenFolder(flags_, *store_, progress) : LoadOne(flags_, progress);
    } catch (const std::exception& error) {  // out of memory
      return Status(StatusCode::kInternal, error.what());
    }
  }

  Flags flags_;
  std::optional<ModelStore> store_;
  Server& server_;
  ModelPool* pool_ = nullptr;
  int status_ = 0;
  std::atomic<bool> is_over_{false};
  std::thread thread_;  // last: it uses the others
};

int Serve(Flags flags) {
  const Log log(LogFormatOf(flags));
  StartLog(LogFormatOf(flags));
  if (LogFormatOf(flags) == LogFormat::kJson)
    SayThrough([log](std::string_view text) { LogSaid(log, text); });
  flags.model.prefix_cache = !flags.no_prefix_cache;
  flags.model.eviction = *FindEvictionPolicy(flags.eviction_policy);  // the flag's check knows them
  std::optional<ModelStore> store;  // of models that are loaded on demand
  if (!NamesModel(flags.model) || !flags.models_dir.empty()) {
    Result<ModelStore> found = StoreOf(flags);
    if (!found.ok()) return ExitStatusOf(found.status());
    store = std::move(*found);
  }
  if (const Status models = CheckModels(flags); !models.ok()) return ExitStatusOf(models);
  const Result<Server::Options> options = ServerOptions(flags);
  if (!options.ok()) return ExitStatusOf(options.status());
  const Result<std::unique_ptr<Server>> server = Server::Create(*options);
  if (!server.ok()) return ExitStatusOf(server.status());
  // Whoever reads the log may go away; that is no reason to die.
  std::signal(SIGPIPE, SIG_IGN);
  Loading loading(flags, std::move(store), **server);
  (*server)->Run();
  return loading.End();
}

void AddServedModelFlags(CLI::App* serve, Flags* flags) {
  AddModelFlags(serve, &flags->model);
  serve
      ->add_option(
          "--models-dir", flags->models_dir,
          "Serve all models of this folder, each loaded when it is asked for (default: without "
          "--model the pulled ones)")
      ->type_name("PATH");
  serve
      ->add_option("--models-memory", flags->models_memory,
                   "Memory for all of these that are loaded; the one used longest ago goes "
                   "(default: what is free at the start)")
      ->check(Size())
      ->type_name("SIZE");
  serve
      ->add_option("-a,--alias", flags->alias, "Name of the model in the API (default: the file's)")
      ->type_name("NAME");
}

// As a Host header has it, without a port.
CLI::Validator HostName() {
  const auto check = [](const std::string& text) -> std::string {
    const bool is_name = std::all_of(text.begin(), text.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '-' || c == '.' || c == '_';
    });
    if (is_name && !text.empty()) return {};
    return fmt::format("\"{}\" is not a name like chat.example, without scheme and port", text);
  };
  return CLI::Validator(check, "");
}

// Where it listens, and to whom.
void AddAccessFlags(CLI::App* serve, Flags* flags) {
  serve->add_option("--host", flags->server.host, "Address to listen on")
      ->capture_default_str()
      ->type_name("ADDRESS");
  serve->add_option("--port", flags->server.port, "Port; 0 takes a free one")
      ->check(Between(0, 65535))
      ->capture_default_str()
      ->type_name("N");
  serve
      ->add_option("--api-key-file", flags->api_key_file,
                   "Keys that clients must send, one a line; each has a share of the machine and a "
                   "cache of its own (docs/api.md)")
      ->type_name("FILE");
  serve->add_flag("--no-auth", flags->no_auth,
                  "Listen on an address that others reach without keys");
  serve
      ->add_option("--allowed-hosts", flags->server.origins.hosts,
                   "Names by which the server may be called when it takes no keys, beside its "
                   "address and localhost; several by commas (default: none; with --no-auth any)")
      ->check(HostName())
      ->type_name("NAME")
      ->delimiter(',')
      ->allow_extra_args(false);
  serve
      ->add_option("--cors", flags->server.origins.allowed,
                   "Web pages that may use the server: their origin, like https://chat.example, or "
                   "* for all; several by commas")
      ->type_name("ORIGIN")
      ->delimiter(',')
      ->allow_extra_args(false);
}

// What computes, and what stays of it.
void AddComputeFlags(CLI::App* serve, Flags* flags) {
  AddThreadsFlag(serve, &flags->model);
  AddKvTypeFlag(serve, &flags->model);
  AddCacheFlags(serve, &flags->model);
  serve->add_flag("--no-prefix-cache", flags->no_prefix_cache,
                  "Keep nothing of a finished request");
  std::vector<std::string> policies;
  for (const EvictionPolicyKind kind : kEvictionPolicies)
    policies.emplace_back(EvictionPolicyName(kind));
  AddChoice(serve, "--eviction-policy", &flags->eviction_policy,
            "What goes first when the KV cache is full; docs/caching-strategies.md compares them",
            policies);
  serve
      ->add_option("--pin-share", flags->model.pin_share,
                   "How much of the KV cache prompts that are to stay for a time may hold together")
      ->check(Between(0, 100))
      ->capture_default_str()
      ->type_name("PERCENT");
}

void AddLimitFlags(CLI::App* serve, Flags* flags) {
  serve
      ->add_option("--max-itl-ms", flags->model.max_itl_ms,
                   "Longest pause between two tokens of an answer that prompts beside it should "
                   "cause; 0: none is set")
      ->check(Between(0, 3600000))
      ->capture_default_str()
      ->type_name("MS");
  serve
      ->add_option("--max-queue", flags->model.max_queue, "Waiting requests of a key; more get 503")
      ->check(Between(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  serve
      ->add_option("--max-connections", flags->server.max_connections,
                   "Open connections; more wait until one is closed")
      ->check(Between(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  serve
      ->add_option("--drain-timeout", flags->drain_seconds,
                   "Seconds that running answers have on SIGTERM")
      ->check(Between(0, 86400))
      ->capture_default_str()
      ->type_name("N");
}

// What those who watch see of it.
void AddViewFlags(CLI::App* serve, Flags* flags) {
  AddChoice(serve, "--log-format", &flags->log_format,
            "The log for people, or a JSON object in each line", {"text", "json"});
  serve->add_flag("--log-prompts", flags->server.log_prompts,
                  "Write the prompts that clients send to the log");
  serve->add_flag("--no-page", flags->no_page, "Leave out the web page at /");
}

}  // namespace

void AddServe(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* serve = app.add_subcommand(
      "serve", "Serve a model, or all that were pulled, over HTTP (the APIs of OpenAI and others)");
  AddServedModelFlags(serve, flags.get());
  AddAccessFlags(serve, flags.get());
  AddComputeFlags(serve, flags.get());
  AddLimitFlags(serve, flags.get());
  AddViewFlags(serve, flags.get());
  serve->callback([flags, exit_status] { *exit_status = Serve(*flags); });
}

}  // namespace trellis
