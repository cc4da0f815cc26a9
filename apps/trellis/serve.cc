// trellis serve: the HTTP server.
#include <fmt/format.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "commands.h"
#include "console.h"
#include "flags.h"
#include "loading.h"
#include "models.h"
#include "server/server.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  Server::Options server;
  std::string alias;
  std::string api_key_file;
  int drain_seconds = 30;
  std::string log_format = "text";
  bool no_page = false;
  bool no_prefix_cache = false;
  bool no_auth = false;
  std::string eviction_policy{EvictionPolicyName(EvictionPolicyKind::kLru)};
};

std::string NameOf(const Flags& flags) {
  if (!flags.alias.empty()) return flags.alias;
  std::string name = flags.model.path.substr(flags.model.path.find_last_of('/') + 1);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name;
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
  if (const Status named = CheckModelIsNamed(flags.model); !named.ok()) return ExitStatusOf(named);
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
  std::thread loader([&] {
    const auto progress = [&server](size_t done, size_t total) {
      server.load_progress().done = done;
      server.load_progress().total = total;
    };
    const auto load = [&]() -> Result<std::unique_ptr<Service>> {
      try {
        // Whoever stops the server meanwhile ends the process; a partial file stays.
        TRELLIS_RETURN_IF_ERROR(ResolveModel(&flags.model, [] { return false; }));
        return LoadService(flags.model, progress);
      } catch (const std::exception& error) {  // out of memory
        return Status(StatusCode::kInternal, error.what());
      }
    };
    auto service = load();
    if (!service.ok()) {
      status = ExitStatusOf(service.status());
      loading = false;
      server.Stop();
      return;
    }
    (*service)->model_name = NameOf(flags);
    server.SetService(std::move(*service));
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
  return status;
}

}  // namespace

void AddServe(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* serve = app.add_subcommand("serve", "Serve a model over HTTP (OpenAI's API)");
  AddModelFlags(serve, &flags->model);
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
