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

OrderedJson ModelObject(const Service& service) {
  const ModelSpec& spec = service.model->spec();
  return {{"name", service.model_name},
          {"model", service.model_name},
          {"size", spec.file_bytes},
          {"digest", service.fingerprint},
          {"details", Details(spec)}};
}

Reply ListOf(OrderedJson model) {
  return {.body = ToText({{"models", OrderedJson::array({std::move(model)})}})};
}

}  // namespace

Reply OllamaTags(const Service& service) {
  OrderedJson model = ModelObject(service);
  model["modified_at"] = TimeText(service.created);
  return ListOf(std::move(model));
}

Reply OllamaPs(const Service& service) {
  OrderedJson model = ModelObject(service);
  // It stays until the server ends.
  model["expires_at"] = "2318-01-01T00:00:00Z";
  model["size_vram"] = 0;
  model["context_length"] = service.engine->context_size();
  return ListOf(std::move(model));
}

Reply OllamaShow(const std::string& body, const Service& service) {
  ApiResult<Json> json = ParseJson(body);
  if (!json.ok()) return ErrorReply(json.error());
  FieldReader reader(json.value(), "");
  std::string name;
  reader.String("name", &name);  // its older name
  reader.String("model", &name);
  if (!reader.ok()) return ErrorReply(reader.error());
  name = WithoutLatest(std::move(name));
  if (name != service.model_name) return ErrorReply(ModelNotFound(name, service.model_name));
  const ModelSpec& spec = service.model->spec();
  OrderedJson capabilities = OrderedJson::array({"completion"});
  for (const std::string& capability : service.chat_template->capabilities())
    capabilities.push_back(capability);
  const std::string& arch = spec.architecture;
  return {.body = ToText({{"modelfile", ""},
                          {"parameters", ""},
                          {"template", service.tokenizer->chat_template()},
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
