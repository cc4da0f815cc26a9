// trellis ps: what a running server serves, and how busy it is.
#include <fmt/format.h>

#include <map>
#include <sstream>

#include "api/json_text.h"
#include "commands.h"
#include "console.h"
#include "hub/http_client.h"
#include "hub/patience.h"
#include "loading.h"

namespace trellis {
namespace {

struct Flags {
  std::string url = "http://127.0.0.1:8080", api_key;
  bool json = false;
};

class Server {
 public:
  explicit Server(const Flags& flags) : flags_(flags) {}

  Result<HttpClient::Answer> Get(const std::string& path) {
    return client_.Send({.url = flags_.url + path,
                         .token = flags_.api_key,
                         .longest_silence = std::chrono::seconds(30)});
  }

  // ERRORS: those of Send and ErrorOf; kDataLoss: it is no JSON object.
  Result<Json> GetJson(const std::string& path) {
    TRELLIS_ASSIGN_OR_RETURN(const HttpClient::Answer answer, Get(path));
    if (!answer.ok()) return ErrorOf(answer);
    auto json = ParseJson(answer.body);
    if (!json.ok() || !json.value().is_object()) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}{} answers something else than Trellis does", flags_.url, path));
    }
    return std::move(json.value());
  }

  // Metrics by their name, with their labels as they are written.
  Result<std::map<std::string, double>> Metrics() {
    TRELLIS_ASSIGN_OR_RETURN(const HttpClient::Answer answer, Get("/metrics"));
    if (!answer.ok()) return ErrorOf(answer);
    std::map<std::string, double> metrics;
    std::istringstream lines(answer.body);
    for (std::string line; std::getline(lines, line);) {
      const size_t space = line.rfind(' ');
      if (line.starts_with('#') || space == line.npos) continue;
      metrics[line.substr(0, space)] = std::strtod(line.c_str() + space, nullptr);
    }
    return metrics;
  }

 private:
  const Flags& flags_;
  HttpClient client_;
};

// The number at `path` ("/pages/free"), or 0.
size_t Number(const Json& json, const char* path) {
  const Json* value = nullptr;
  const Json::json_pointer pointer(path);
  if (json.contains(pointer)) value = &json[pointer];
  return value != nullptr && value->is_number_unsigned() ? value->get<size_t>() : 0;
}

// "loaded", "loading" or "unloaded".
std::string StatusOf(const Json& model) {
  return model.value(Json::json_pointer("/status/value"), "loaded");
}

void PrintLoaded(const OrderedJson& model) {
  const OrderedJson& requests = model["requests"];
  fmt::print("  requests     {} running, {} waiting, {} since it was loaded\n",
             requests["running"].get<size_t>(), requests["waiting"].get<size_t>(),
             requests["total"].get<size_t>());
  const Json cache = model["cache"];
  fmt::print("  KV cache     {} of {} used, pages: {} private, {} committed ({} pinned), {} free\n",
             FormatBytes(Number(cache, "/used_bytes")), FormatBytes(Number(cache, "/bytes")),
             Number(cache, "/pages/private"), Number(cache, "/pages/committed"),
             Number(cache, "/pages/pinned"), Number(cache, "/pages/free"));
  const auto prompt = model["prompt_tokens"].get<double>();
  const auto cached = model["cached_tokens"].get<double>();
  fmt::print("  prompts      {:.0f} tokens, {:.1f} % of them were cached\n", prompt,
             prompt > 0 ? 100 * cached / prompt : 0.0);
}

// The others are counted, as there may be many.
void Print(const Flags& flags, const OrderedJson& report) {
  fmt::print("{} (trellis {})\n", flags.url, report["version"].get<std::string>());
  if (report["status"] != "ok") {
    fmt::print("  loading      {:.0f} %\n", report["progress"].get<double>() * 100);
    return;
  }
  size_t num_unloaded = 0;
  for (const OrderedJson& model : report["models"]) {
    const Json json = model;
    const std::string status = StatusOf(json);
    if (status == "unloaded") {
      num_unloaded++;
      continue;
    }
    fmt::print("  model        {}: context {}, weights {}{}\n", json.value("id", ""),
               Number(json, "/meta/n_ctx"), FormatBytes(Number(json, "/meta/size")),
               status == "loading" ? ", loading" : "");
    if (status == "loaded") PrintLoaded(model);
  }
  if (num_unloaded > 0) fmt::print("  {} more models are not loaded\n", num_unloaded);
}

// What the server counts of a loaded model goes into `model`. ERRORS: those of GetJson.
Status AskOf(Server& server, std::map<std::string, double>& metrics, OrderedJson* model) {
  const std::string name = model->value("id", "");
  const auto count = [&](const char* metric) {
    // The label is there where several models may be loaded.
    const std::string plain = std::string("trellis_") + metric;
    const std::string labelled = fmt::format("{}{{model={}}}", plain, ToText(name));
    return static_cast<size_t>(metrics[metrics.contains(labelled) ? labelled : plain]);
  };
  const Result<Json> cache = server.GetJson("/v1/cache?model=" + PercentEncoded(name));
  if (cache.status().code() == StatusCode::kNotFound) {  // it has gone meanwhile
    (*model)["status"]["value"] = "unloaded";
    return Status::Ok();
  }
  TRELLIS_RETURN_IF_ERROR(cache.status());
  (*model)["requests"] = {{"running", count("num_requests_running")},
                          {"waiting", count("num_requests_waiting")},
                          {"total", count("requests_total")}};
  (*model)["cache"] = *cache;
  (*model)["prompt_tokens"] = count("prompt_tokens_total");
  (*model)["cached_tokens"] = count("prompt_tokens_cached_total");
  return Status::Ok();
}

// ERRORS: those of GetJson.
Result<OrderedJson> Ask(const Flags& flags) {
  Server server(flags);
  TRELLIS_ASSIGN_OR_RETURN(const Json version, server.GetJson("/version"));
  OrderedJson report = {{"url", flags.url}, {"version", version.value("version", "")}};
  TRELLIS_ASSIGN_OR_RETURN(const HttpClient::Answer health, server.Get("/health"));
  if (!health.ok()) {
    auto json = ParseJson(health.body);
    report["status"] = "loading";
    report["progress"] =
        json.ok() && json.value().is_object() ? json.value().value("progress", 0.0) : 0.0;
    return report;
  }
  report["status"] = "ok";
  TRELLIS_ASSIGN_OR_RETURN(const Json models, server.GetJson("/v1/models"));
  TRELLIS_ASSIGN_OR_RETURN(auto metrics, server.Metrics());
  report["models"] = models.value("data", Json::array());
  for (OrderedJson& model : report["models"]) {
    if (StatusOf(model) == "loaded") TRELLIS_RETURN_IF_ERROR(AskOf(server, metrics, &model));
  }
  return report;
}

Status Run(Flags flags) {
  while (flags.url.ends_with('/')) flags.url.pop_back();
  TRELLIS_ASSIGN_OR_RETURN(const OrderedJson report, Ask(flags));
  if (flags.json) {
    fmt::print("{}\n", ToText(report));
  } else {
    Print(flags, report);
  }
  return Status::Ok();
}

}  // namespace

void AddPs(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* ps = app.add_subcommand("ps", "Say what a running server serves, and how busy it is");
  ps->add_option("--url", flags->url, "Of the server")->capture_default_str()->type_name("URL");
  ps->add_option("--api-key", flags->api_key, "One of its keys, if it has some")->type_name("KEY");
  ps->add_flag("--json", flags->json, "As JSON");
  ps->callback([flags, exit_status] { *exit_status = ExitStatusOf(Run(*flags)); });
}

}  // namespace trellis
