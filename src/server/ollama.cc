#include "server/ollama.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>

#include "api/field_reader.h"
#include "api/json_text.h"
#include "api/ollama_requests.h"

namespace trellis {
namespace {

std::string TimeText(int64_t seconds) {
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}Z",
                     std::chrono::sys_seconds(std::chrono::seconds(seconds)));
}

// "135M", "1.5B".
std::string SizeText(size_t num_parameters) {
  const auto n = static_cast<double>(num_parameters);
  return n < 1e9 ? fmt::format("{:.0f}M", n / 1e6) : fmt::format("{:.1f}B", n / 1e9);
}

OrderedJson Details(const ModelSpec& spec) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", spec.architecture},
          {"families", OrderedJson::array({spec.architecture})},
          {"parameter_size", SizeText(spec.num_parameters)},
          {"quantization_level", spec.file_type}};
}

OrderedJson ModelObject(const ModelInfo& model) {
  return {{"name", model.name},
          {"model", model.name},
          {"size", model.spec.file_bytes},
          {"digest", model.fingerprint},
          {"details", Details(model.spec)}};
}

Reply ListOf(OrderedJson models) {
  return {.body = ToText({{"models", std::move(models)}})};
}

}  // namespace

Reply OllamaTags(ModelPool& models) {
  const Result<std::vector<ListedModel>> all = models.List();
  if (!all.ok()) return ErrorReply(ErrorFromStatus(all.status()));
  OrderedJson list = OrderedJson::array();
  for (const ListedModel& listed : *all) {
    OrderedJson& model = list.emplace_back(ModelObject(listed.info));
    model["modified_at"] = TimeText(listed.info.created);
  }
  return ListOf(std::move(list));
}

Reply OllamaPs(ModelPool& models) {
  OrderedJson list = OrderedJson::array();
  for (const ModelInfo& info : models.Loaded()) {
    OrderedJson& model = list.emplace_back(ModelObject(info));
    // It stays until the server ends, or another one needs its memory.
    model["expires_at"] = "2318-01-01T00:00:00Z";
    model["size_vram"] = 0;
    model["context_length"] = info.context_size;
  }
  return ListOf(std::move(list));
}

Reply OllamaShow(const std::string& body, ModelPool& models) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return ErrorReply(json.error());
  FieldReader reader(json.value(), "");
  std::string name;
  reader.String("name", &name);  // its older name
  reader.String("model", &name);
  if (!reader.ok()) return ErrorReply(reader.error());
  const Result<ModelInfo> model = models.Find(WithoutLatest(std::move(name)));
  if (!model.ok()) return ErrorReply(ErrorOfModel(model.status()));
  const Result<ModelDetails> details = models.Describe(*model);
  if (!details.ok()) return ErrorReply(ErrorOfModel(details.status()));
  const ModelSpec& spec = model->spec;
  OrderedJson capabilities = OrderedJson::array({"completion"});
  for (const std::string& capability : details->capabilities) capabilities.push_back(capability);
  const std::string& arch = spec.architecture;
  return {.body = ToText({{"modelfile", ""},
                          {"parameters", ""},
                          {"template", details->chat_template},
                          {"details", Details(spec)},
                          {"model_info",
                           {{"general.architecture", arch},
                            {"general.parameter_count", spec.num_parameters},
                            {arch + ".context_length", spec.context_length},
                            {arch + ".embedding_length", spec.embedding_length},
                            {arch + ".block_count", spec.num_layers}}},
                          {"capabilities", std::move(capabilities)}})};
}

}  // namespace trellis
