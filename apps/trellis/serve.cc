// trellis serve: the HTTP server.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <future>
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
                             .log = Log(flags.server.log_format)};
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

int Serve(Flags flags) {
  const bool is_json = flags.log_format == "json";
  flags.server.log_format = is_json ? LogFormat::kJson : LogFormat::kText;
  StartLog(flags.server.log_format);
  const Log log(flags.server.log_format);
  if (is_json) SayThrough([log](std::string_view text) { LogSaid(log, text); });
  const bool is_named = NamesModel(flags.model);
  std::optional<ModelStore> store;  // of models that are loaded on demand
  if (!is_named || !flags.models_dir.empty()) {
    Result<ModelStore> found = StoreOf(flags);
    if (!found.ok()) return ExitStatusOf(found.status());
    store = std::move(*found);
  }
  if (const Status named = CheckModelIsNamed(flags.model); is_named && !named.ok())
    return ExitStatusOf(named);
  if (!is_named && !flags.alias.empty()) {
    Say("trellis: --alias {}: it is a name for the model of --model or -hf\n", flags.alias);
    return kExitUsage;
  }
  flags.model.prefix_cache = !flags.no_prefix_cache;
  flags.model.eviction = *FindEvictionPolicy(flags.eviction_policy);  // the flag's check knows them
  flags.server.drain_timeout = std::chrono::seconds(flags.drain_seconds);
  flags.server.has_page = !flags.no_page;
  if (!flags.api_key_file.empty()) {
    Result<ApiKeys> keys = ApiKeys::Read(flags.api_key_file);
    if (!keys.ok()) {
      Say("trellis: --api-key-file: {}\n", keys.status().message());
      return kExitUsage;
    }
    flags.server.keys = std::move(*keys);
    flags.server.key_file = flags.api_key_file;
  }
  const bool is_open = flags.server.keys.empty() && !IsLoopback(flags.server.host);
  if (is_open && !flags.no_auth) {
    Say("trellis: --host {}: whoever reaches this address could use the model. Give keys "
        "(--api-key-file), or say that this is wanted (--no-auth)\n",
        flags.server.host);
    return kExitUsage;
  }
  flags.server.origins.needs_local_host = flags.server.keys.empty() && !is_open;
  auto created = Server::Create(flags.server);
  if (!created.ok()) {
    Say("trellis: {}\n", created.status().message());
    return created.status().code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailure;
  }
  Server& server = **created;
  const bool is_ipv6 = flags.server.host.find(':') != std::string::npos;
  const std::string address = is_ipv6 ? "[" + flags.server.host + "]" : flags.server.host;
  const std::string url = fmt::format("http://{}:{}", address, server.port());
  // Whoever reads the log may go away; that is no reason to die.
  std::signal(SIGPIPE, SIG_IGN);
  std::atomic<int> status{0};
  std::atomic<bool> loading{true};
  std::atomic<ModelPool*> pool{nullptr};
  std::thread loader([&] {
    const auto progress = [&server](size_t done, size_t total) {
      server.load_progress().done = done;
      server.load_progress().total = total;
    };
    const auto load = [&]() -> Result<std::unique_ptr<ModelPool>> {
      try {
        // Whoever stops the server meanwhile ends the process; a partial file stays.
        if (is_named) TRELLIS_RETURN_IF_ERROR(ResolveModel(&flags.model, [] { return false; }));
        return store ? OpenFolder(flags, *store, progress) : LoadOne(flags, progress);
      } catch (const std::exception& error) {  // out of memory
        return Status(StatusCode::kInternal, error.what());
      }
    };
    auto models = load();
    if (!models.ok()) {
      status = ExitStatusOf(models.status());
      loading = false;
      server.Stop();
      return;
    }
    pool = models->get();
    server.SetModels(std::move(*models));
    loading = false;
    if (is_json) return log.Info("listening", {{"url", url}});
    Say("listening on {0}\n{1}  curl {0}/v1/chat/completions -H 'Content-Type: application/json' "
        "\\\n"
        "    -d '{{\"messages\":[{{\"role\":\"user\",\"content\":\"Say "
        "hello.\"}}],\"max_tokens\":64}}'\n",
        url, flags.no_page ? "" : fmt::format("  open {}/ in a browser, or\n", url));
  });
  server.Run();
  if (loading) std::_Exit(0);  // told to stop, and nothing to wait for
  loader.join();
  if (pool != nullptr && pool.load()->is_loading()) std::_Exit(status);
  return status;
}

}  // namespace

void AddServe(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* serve = app.add_subcommand(
      "serve", "Serve a model, or all that were pulled, over HTTP (the APIs of OpenAI and others)");
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
  serve->add_option("--host", flags->server.host, "Address to listen on")
      ->capture_default_str()
      ->type_name("ADDRESS");
  serve->add_option("--port", flags->server.port, "Port; 0 takes a free one")
      ->check(Between(0, 65535))
      ->capture_default_str()
      ->type_name("N");
  AddThreadsFlag(serve, &flags->model);
  AddKvTypeFlag(serve, &flags->model);
  AddCacheFlags(serve, &flags->model);
  serve
      ->add_option("-a,--alias", flags->alias, "Name of the model in the API (default: the file's)")
      ->type_name("NAME");
  serve->add_flag("--no-prefix-cache", flags->no_prefix_cache,
                  "Keep nothing of a finished request");
  std::vector<std::string> policies;
  for (const EvictionPolicyKind kind : kEvictionPolicies)
    policies.emplace_back(EvictionPolicyName(kind));
  AddChoice(serve, "--eviction-policy", &flags->eviction_policy,
            "What goes first when the KV cache is full; docs/caching-strategies.md compares them",
            policies);
  serve
      ->add_option("--api-key-file", flags->api_key_file,
                   "Keys that clients must send, one a line; each has a share of the machine and a "
                   "cache of its own (docs/api.md)")
      ->type_name("FILE");
  serve->add_flag("--no-auth", flags->no_auth,
                  "Listen on an address that others reach without keys");
  serve
      ->add_option("--cors", flags->server.origins.allowed,
                   "Web pages that may use the server: their origin, like https://chat.example, or "
                   "* for all; several by commas")
      ->type_name("ORIGIN")
      ->delimiter(',')
      ->allow_extra_args(false);
  AddChoice(serve, "--log-format", &flags->log_format,
            "The log for people, or a JSON object in each line", {"text", "json"});
  serve->add_flag("--log-prompts", flags->server.log_prompts,
                  "Write the prompts that clients send to the log");
  serve->add_flag("--no-page", flags->no_page, "Leave out the web page at /");
  serve
      ->add_option("--max-itl-ms", flags->model.max_itl_ms,
                   "Longest pause between two tokens of an answer that prompts beside it should "
                   "cause; 0: none is set")
      ->check(Between(0, 3600000))
      ->capture_default_str()
      ->type_name("MS");
  serve
      ->add_option("--pin-share", flags->model.pin_share,
                   "How much of the KV cache prompts that are to stay for a time may hold together")
      ->check(Between(0, 100))
      ->capture_default_str()
      ->type_name("PERCENT");
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
  serve->callback([flags, exit_status] { *exit_status = Serve(*flags); });
}

}  // namespace trellis
