// trellis list and rm: the models that were pulled.
#include "models.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "api/json_text.h"
#include "commands.h"
#include "console.h"
#include "hub/model_name.h"
#include "hub/model_store.h"
#include "model/gguf_file.h"
#include "model/transformer_config.h"
#include "pull.h"

namespace trellis {
namespace {

struct Row {
  StoredModel model;
  std::string quant;
  std::optional<size_t> context;  // none: not a model that runs here
};

Row ReadRow(StoredModel model) {
  Row row{.model = std::move(model), .quant = {}, .context = {}};
  row.quant = row.model.quant;
  if (!row.model.is_whole) return row;
  const auto gguf = GgufFile::Open(row.model.files[0]);
  if (!gguf.ok()) return row;
  const auto config = ReadTransformerConfig(**gguf);
  if (!config.ok()) return row;
  row.context = config->spec.context_length;
  row.quant = config->spec.file_type;
  return row;
}

std::string TimeOf(const Row& row, const char* format) {
  return fmt::format(fmt::runtime(format),
                     fmt::localtime(std::chrono::system_clock::to_time_t(row.model.modified)));
}

void PrintTable(const std::vector<Row>& rows) {
  size_t width = 4;
  for (const Row& row : rows) width = std::max(width, row.model.name.size());
  fmt::print("{:<{}}  {:>10}  {:<14}  {:>8}  PULLED\n", "NAME", width, "SIZE", "QUANTISATION",
             "CONTEXT");
  for (const Row& row : rows) {
    fmt::print("{:<{}}  {:>10}  {:<14}  {:>8}  {}\n", row.model.name, width,
               FormatBytes(row.model.bytes), row.quant.empty() ? "-" : row.quant,
               row.context ? fmt::to_string(*row.context) : "-",
               row.model.is_whole ? TimeOf(row, "{:%Y-%m-%d %H:%M}") : "not whole: pull again");
  }
}

void PrintJson(const std::vector<Row>& rows) {
  OrderedJson list = OrderedJson::array();
  for (const Row& row : rows) {
    OrderedJson json = {
        {"name", row.model.name},     {"files", row.model.files},
        {"size", row.model.bytes},    {"quantization", row.quant},
        {"context_length", nullptr},  {"modified", TimeOf(row, "{:%Y-%m-%dT%H:%M:%S%z}")},
        {"whole", row.model.is_whole}};
    if (row.context) json["context_length"] = *row.context;
    list.push_back(std::move(json));
  }
  fmt::print("{}\n", ToText(list));
}

struct ListFlags {
  bool json = false, quiet = false;
};

Status List(const ListFlags& flags) {
  TRELLIS_ASSIGN_OR_RETURN(const ModelStore store, ModelStore::Open());
  TRELLIS_ASSIGN_OR_RETURN(std::vector<StoredModel> models, store.List());
  if (flags.quiet) {
    for (const StoredModel& model : models) {
      if (model.is_whole) fmt::print("{}\n", model.name);
    }
    return Status::Ok();
  }
  std::vector<Row> rows;
  for (StoredModel& model : models) rows.push_back(ReadRow(std::move(model)));
  if (rows.empty() && !flags.json)
    Say("there is no model in {} yet: trellis pull USER/REPO\n", store.folder());
  (flags.json ? PrintJson : PrintTable)(rows);
  return Status::Ok();
}

Status Remove(const std::vector<std::string>& names) {
  TRELLIS_ASSIGN_OR_RETURN(const ModelStore store, ModelStore::Open());
  for (const std::string& name : names) {
    TRELLIS_ASSIGN_OR_RETURN(const StoredModel model, store.Remove(name));
    Say("removed {} ({})\n", model.name, FormatBytes(model.bytes));
  }
  return Status::Ok();
}

}  // namespace

Result<std::string> FindModelFile(const std::string& name) {
  std::error_code error;
  if (std::filesystem::exists(name, error)) return name;
  if (error) return Status(StatusCode::kIo, fmt::format("{}: {}", name, error.message()));
  TRELLIS_ASSIGN_OR_RETURN(const ModelStore store, ModelStore::Open());
  const Result<StoredModel> found = store.Find(name);
  if (found.ok()) return found->files[0];
  if (found.status().code() != StatusCode::kNotFound) return found.status();
  return Status(
      StatusCode::kNotFound,
      fmt::format("{}: No such file, and no pulled model is called so (trellis list)", name));
}

Status CheckModelIsNamed(const ModelOptions& options) {
  if (options.path.empty() && options.hf_repo.empty()) {
    return Status(StatusCode::kInvalidArgument,
                  "--model is required (a GGUF file, or the name of a pulled model), or -hf "
                  "USER/REPO[:QUANT]");
  }
  if (!options.hf_repo.empty() && !ParseModelReference(options.hf_repo)) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("-hf '{}': write USER/REPO or USER/REPO:QUANT", options.hf_repo));
  }
  return Status::Ok();
}

Status ResolveModel(ModelOptions* options, const std::function<bool()>& is_cancelled) {
  TRELLIS_RETURN_IF_ERROR(CheckModelIsNamed(*options));
  if (options->hf_repo.empty()) {
    TRELLIS_ASSIGN_OR_RETURN(options->path, FindModelFile(options->path));
    return Status::Ok();
  }
  TRELLIS_ASSIGN_OR_RETURN(const ModelStore store, ModelStore::Open());
  if (const auto found = store.Find(options->hf_repo); found.ok()) {
    options->path = found->files[0];
  } else {
    TRELLIS_ASSIGN_OR_RETURN(options->path, Pull(options->hf_repo, options->hub, is_cancelled));
  }
  options->hf_repo.clear();
  return Status::Ok();
}

void AddList(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<ListFlags>();
  CLI::App* list = app.add_subcommand("list", "Say which models were pulled");
  list->add_flag("--json", flags->json, "As JSON");
  list->add_flag("-q,--quiet", flags->quiet, "Their names alone, of those that are whole");
  list->callback([flags, exit_status] { *exit_status = ExitStatusOf(List(*flags)); });
}

void AddRemove(CLI::App& app, int* exit_status) {
  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* remove = app.add_subcommand("rm", "Remove pulled models");
  remove->add_option("name", *names, "As trellis list says it")->required()->type_name("MODEL");
  remove->callback([names, exit_status] { *exit_status = ExitStatusOf(Remove(*names)); });
}

}  // namespace trellis
