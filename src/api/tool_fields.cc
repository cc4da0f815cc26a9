#include "api/tool_fields.h"

#include <fmt/format.h>

namespace trellis {
namespace {

// Objects that keep their order are slow to build when they are large.
constexpr size_t kMaxToolBytes = 4u << 20;
constexpr size_t kMaxMembers = 1024;

bool HasLargeObject(const Json& value) {
  if (value.is_object() && value.size() > kMaxMembers) return true;
  if (!value.is_structured()) return false;
  for (const Json& item : value) {
    if (HasLargeObject(item)) return true;
  }
  return false;
}

// Whether llama.cpp's parser, which keeps the order of members and has no limits, is not to see it.
// What is no JSON does not concern it.
bool IsTooMuch(const std::string& text) {
  if (text.size() > kMaxToolBytes || NestingDepth(text) > kMaxJsonDepth) return true;
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return !value.is_discarded() && HasLargeObject(value);
}

// Reads `reader`'s "function" with its name; `outer` gets what is wrong.
void CheckFunction(FieldReader& outer, FieldReader& reader, const char* what) {
  const std::string param = reader.ParamOf("function");
  std::string type = "function";
  reader.String("type", &type);
  if (reader.ok() && type != "function") {
    reader.Fail(UnsupportedField(reader.ParamOf("type"),
                                 fmt::format("{} is \"{}\": only functions can be {}",
                                             reader.ParamOf("type"), Excerpt(type), what)));
  }
  const Json* function = reader.Find("function");
  if (function == nullptr) {
    reader.Fail(InvalidField(param, param + " is missing"));
  } else if (!function->is_object()) {
    reader.FailType(param, "an object", *function);
  } else {
    FieldReader inner(*function, param);
    std::string name;
    inner.String("name", &name);
    if (inner.ok() && name.empty()) {
      inner.Fail(InvalidField(inner.ParamOf("name"), inner.ParamOf("name") + " is missing"));
    }
    if (!inner.ok()) reader.Fail(inner.error());
  }
  if (!reader.ok()) outer.Fail(reader.error());
}

void CheckTool(FieldReader& body, const Json& tool, const std::string& param) {
  if (!tool.is_object()) return body.FailType(param, "an object", tool);
  FieldReader reader(tool, param);
  CheckFunction(body, reader, "tools");
  if (!body.ok()) return;
  FieldReader function(*reader.Find("function"), reader.ParamOf("function"));
  std::string description;
  function.String("description", &description);
  const Json* parameters = function.Find("parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    function.FailType(function.ParamOf("parameters"), "an object", *parameters);
  }
  if (!function.ok()) body.Fail(function.error());
}

void CheckToolChoice(FieldReader& reader) {
  bool parallel = true;  // how many calls to make at once is up to the model
  reader.Bool("parallel_tool_calls", &parallel);
  const Json* choice = reader.Find("tool_choice");
  if (choice == nullptr) return;
  if (!choice->is_string() && !choice->is_object()) {
    return reader.FailType("tool_choice", "a string or an object", *choice);
  }
  if (*choice == "none" || *choice == "auto") return;
  if (choice->is_string() && *choice != "required") {
    return reader.Fail(
        InvalidField("tool_choice", fmt::format("tool_choice is \"{}\"; it must be none or auto",
                                                Excerpt(choice->get<std::string>()))));
  }
  reader.Fail(UnsupportedField(
      "tool_choice",
      "tool_choice can be none or auto: a model cannot be made to call a tool here"));
}

// A mark for the cache (cache_control) is no part of the prompt: to move one is not to change it.
std::string WithoutMarks(std::string_view tools) {
  if (tools.find("\"cache_control\"") == std::string_view::npos) return std::string(tools);
  OrderedJson parsed = OrderedJson::parse(tools);
  for (OrderedJson& tool : parsed) tool.erase("cache_control");
  return parsed.dump();
}

}  // namespace

void ReadTools(FieldReader& reader, std::string_view body, std::string* tools_json) {
  CheckToolChoice(reader);
  const Json* tools = reader.Find("tools");
  if (tools == nullptr || !reader.ok()) return;
  if (!tools->is_array()) return reader.FailType("tools", "an array", *tools);
  if (tools->empty()) return;
  for (size_t i = 0; i < tools->size() && reader.ok(); i++) {
    CheckTool(reader, (*tools)[i], fmt::format("tools[{}]", i));
  }
  const std::string_view text = RawMember(body, "tools");
  if (text.size() > kMaxToolBytes || HasLargeObject(*tools)) {
    return reader.Fail(InvalidField(
        "tools", fmt::format("tools is too large: at most {} bytes and {} members in one object",
                             kMaxToolBytes, kMaxMembers)));
  }
  *tools_json = WithoutMarks(text);
}

void ReadToolCalls(FieldReader& message, std::string* tool_calls_json) {
  const Json* calls = message.Find("tool_calls");
  if (calls == nullptr) return;
  const std::string param = message.ParamOf("tool_calls");
  if (!calls->is_array()) return message.FailType(param, "an array", *calls);
  if (calls->empty()) return;
  OrderedJson checked = OrderedJson::array();
  for (size_t i = 0; i < calls->size() && message.ok(); i++) {
    const Json& call = (*calls)[i];
    const std::string call_param = fmt::format("{}[{}]", param, i);
    if (!call.is_object()) return message.FailType(call_param, "an object", call);
    FieldReader reader(call, call_param);
    std::string id;
    reader.String("id", &id);
    CheckFunction(message, reader, "called");
    if (!message.ok()) return;
    const Json& function = *reader.Find("function");
    const std::string arguments_param = call_param + ".function.arguments";
    std::string arguments = "{}";
    if (const Json* given = FieldReader(function, "").Find("arguments")) {
      if (!given->is_string() && !given->is_object()) {
        return message.FailType(arguments_param, "a string of JSON", *given);
      }
      arguments = given->is_string() ? given->get<std::string>() : given->dump();
    }
    if (IsTooMuch(arguments)) {
      return message.Fail(InvalidField(
          arguments_param,
          fmt::format("{} is too much: at most {} bytes, {} levels and {} members in one object",
                      arguments_param, kMaxToolBytes, kMaxJsonDepth, kMaxMembers)));
    }
    OrderedJson out = {
        {"type", "function"},
        {"function",
         {{"name", function["name"].get<std::string>()}, {"arguments", std::move(arguments)}}}};
    if (!id.empty()) out["id"] = id;
    checked.push_back(std::move(out));
  }
  *tool_calls_json = checked.dump();
}

}  // namespace trellis
