#include "api/tool_fields.h"

#include <fmt/format.h>

#include <algorithm>

namespace trellis {
namespace {

// Objects that keep their order are slow to build when they are large.
constexpr size_t kMaxToolBytes = 4u << 20;
constexpr size_t kMaxMembers = 1024;
constexpr size_t kMaxMemberName = 256;

// Whether llama.cpp's parser, which keeps the order of members and has no limits, is not to see it.
// What is no JSON does not concern it.
bool IsTooMuch(const std::string& text) {
  if (text.size() > kMaxToolBytes || NestingDepth(text) > kMaxJsonDepth) return true;
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return !value.is_discarded() && IsUnwieldy(value);
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

void ReadToolChoice(FieldReader& reader, ToolChoice* out) {
  bool parallel = true;
  reader.Bool("parallel_tool_calls", &parallel);
  if (reader.Find("parallel_tool_calls") != nullptr) out->parallel = parallel;
  const Json* choice = reader.Find("tool_choice");
  if (choice == nullptr) return;
  if (choice->is_string()) {
    const auto text = choice->get<std::string>();
    if (text == "auto") return;
    out->mode = text == "none" ? ToolChoice::Mode::kNone : ToolChoice::Mode::kRequired;
    if (text == "none") return;
    if (text != "required") {
      return reader.Fail(InvalidField(
          "tool_choice",
          fmt::format("tool_choice is \"{}\"; it must be none, auto, required or a function",
                      Excerpt(text))));
    }
  } else if (choice->is_object()) {
    FieldReader object(*choice, "tool_choice");
    CheckFunction(reader, object, "chosen");
    if (!reader.ok()) return;
    out->mode = ToolChoice::Mode::kRequired;
    out->name = (*object.Find("function"))["name"].get<std::string>();
  } else {
    reader.FailType("tool_choice", "a string or an object", *choice);
  }
}

// A mark for the cache (cache_control) is no part of the prompt: to move one is not to change it.
std::string WithoutMarks(std::string_view tools) {
  if (tools.find("\"cache_control\"") == std::string_view::npos) return std::string(tools);
  OrderedJson parsed = OrderedJson::parse(tools);
  for (OrderedJson& tool : parsed) tool.erase("cache_control");
  return parsed.dump();
}

// Fails where JSON that keeps the order of members would take too long.
void CheckToolSize(FieldReader& reader, std::string_view text, const Json& tools) {
  if (text.size() <= kMaxToolBytes && !IsUnwieldy(tools)) return;
  reader.Fail(InvalidField(
      "tools", fmt::format("tools is too large: at most {} bytes, {} members in one object, and {} "
                           "bytes of a name",
                           kMaxToolBytes, kMaxMembers, kMaxMemberName)));
}

// Of a flat tool, as a function in ReadTools' form. `ordered`: the same with its members in order.
OrderedJson ReadFlatTool(FieldReader& tool, const FlatTools& form, const OrderedJson& ordered) {
  std::string name, description;
  tool.String("name", &name);
  if (tool.ok() && name.empty()) {
    tool.Fail(InvalidField(tool.ParamOf("name"), tool.ParamOf("name") + " is missing"));
  }
  tool.String("description", &description);
  const Json* schema = tool.Find(form.schema);
  if (schema != nullptr && !schema->is_object()) {
    tool.FailType(tool.ParamOf(form.schema), "an object", *schema);
  }
  OrderedJson function = {{"name", name}};
  if (!description.empty()) function["description"] = description;
  function["parameters"] = schema == nullptr ? OrderedJson::object() : ordered.at(form.schema);
  return {{"type", "function"}, {"function", std::move(function)}};
}

}  // namespace

bool IsUnwieldy(const Json& value) {
  if (value.is_object()) {
    if (value.size() > kMaxMembers) return true;
    for (const auto& [name, member] : value.items()) {
      const bool names_something = name == "$ref" || name == "name";
      if (name.size() > kMaxMemberName || IsUnwieldy(member)) return true;
      if (names_something && member.is_string() &&
          member.get_ref<const std::string&>().size() > kMaxMemberName)
        return true;
    }
  } else if (value.is_array()) {
    return std::any_of(value.begin(), value.end(), IsUnwieldy);
  }
  return false;
}

void ReadFlatTools(FieldReader& reader, std::string_view body, const FlatTools& form,
                   std::string* tools_json) {
  const Json* tools = reader.Find("tools");
  if (tools == nullptr) return;
  if (!tools->is_array()) return reader.FailType("tools", "an array", *tools);
  const std::string_view text = RawMember(body, "tools");
  CheckToolSize(reader, text, *tools);
  if (!reader.ok()) return;
  const OrderedJson ordered = OrderedJson::parse(text);
  OrderedJson made = OrderedJson::array();
  for (size_t i = 0; i < tools->size() && reader.ok(); i++) {
    const std::string param = fmt::format("tools[{}]", i);
    if (!(*tools)[i].is_object()) return reader.FailType(param, "an object", (*tools)[i]);
    FieldReader tool((*tools)[i], param);
    std::string type = form.type;
    tool.String("type", &type);
    if (tool.ok() && type != form.type) {
      if (form.others == FlatTools::Others::kLeaveOut) continue;
      tool.Fail(UnsupportedField(
          tool.ParamOf("type"), fmt::format("{} is \"{}\": only the client's own tools can be used",
                                            tool.ParamOf("type"), Excerpt(type))));
    }
    made.push_back(ReadFlatTool(tool, form, ordered[i]));
    if (!tool.ok()) reader.Fail(tool.error());
  }
  if (reader.ok() && !made.empty()) *tools_json = made.dump();
}

void ReadTools(FieldReader& reader, std::string_view body, std::string* tools_json,
               ToolChoice* choice) {
  const Json* tools = reader.Find("tools");
  if (tools != nullptr && !tools->is_array()) return reader.FailType("tools", "an array", *tools);
  for (size_t i = 0; tools != nullptr && i < tools->size() && reader.ok(); i++) {
    CheckTool(reader, (*tools)[i], fmt::format("tools[{}]", i));
  }
  if (!reader.ok()) return;
  if (tools != nullptr && !tools->empty()) {
    const std::string_view text = RawMember(body, "tools");
    CheckToolSize(reader, text, *tools);
    if (reader.ok()) *tools_json = WithoutMarks(text);
  }
  ReadToolChoice(reader, choice);
  CheckChoice(reader, *tools_json, "tool_choice.function.name", *choice);
}

void CheckChoice(FieldReader& reader, const std::string& tools_json, const std::string& param,
                 const ToolChoice& choice) {
  if (!reader.ok() || choice.mode != ToolChoice::Mode::kRequired) return;
  if (tools_json.empty()) {
    return reader.Fail(InvalidField(
        "tool_choice", "tool_choice requires a call, and there are no tools that can be called"));
  }
  if (choice.name.empty()) return;
  for (const Json& tool : Json::parse(tools_json)) {
    if (tool["function"]["name"] == choice.name) return;
  }
  reader.Fail(
      InvalidField(param, fmt::format("{}: there is no tool \"{}\"", param, Excerpt(choice.name))));
}

namespace {

// A call's arguments, `value`, which are JSON as a string, or an object, written as `text`.
std::string ReadArguments(FieldReader& reader, const Json* value, std::string_view text,
                          const std::string& param) {
  if (value == nullptr) return "{}";
  if (!value->is_string() && !value->is_object()) {
    reader.FailType(param, "an object, or a string of JSON", *value);
    return "";
  }
  std::string arguments = value->is_string() ? value->get<std::string>() : std::string(text);
  if (IsTooMuch(arguments)) {
    reader.Fail(InvalidField(
        param,
        fmt::format("{} is too much: at most {} bytes, {} levels and {} members in one object",
                    param, kMaxToolBytes, kMaxJsonDepth, kMaxMembers)));
  }
  return arguments;
}

OrderedJson CallJson(const std::string& id, const std::string& name, std::string arguments) {
  OrderedJson call = {{"type", "function"},
                      {"function", {{"name", name}, {"arguments", std::move(arguments)}}}};
  if (!id.empty()) call["id"] = id;
  return call;
}

}  // namespace

void ReadToolCalls(FieldReader& message, std::string_view text, std::string* tool_calls_json) {
  const Json* calls = message.Find("tool_calls");
  if (calls == nullptr) return;
  const std::string param = message.ParamOf("tool_calls");
  if (!calls->is_array()) return message.FailType(param, "an array", *calls);
  if (calls->empty()) return;
  const std::vector<std::string_view> texts = RawElements(RawMember(text, "tool_calls"));
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
    std::string arguments = ReadArguments(message, FieldReader(function, "").Find("arguments"),
                                          RawMember(RawMember(texts[i], "function"), "arguments"),
                                          call_param + ".function.arguments");
    checked.push_back(CallJson(id, function["name"].get<std::string>(), std::move(arguments)));
  }
  *tool_calls_json = checked.dump();
}

void ReadFlatCall(FieldReader& call, std::string_view text, const FlatCall& form,
                  OrderedJson* out) {
  std::string id, name;
  call.String(form.id, &id);
  call.String("name", &name);
  if (call.ok() && name.empty()) {
    call.Fail(InvalidField(call.ParamOf("name"), call.ParamOf("name") + " is missing"));
  }
  std::string arguments =
      ReadArguments(call, call.Find(form.arguments), RawMember(text, form.arguments),
                    call.ParamOf(form.arguments));
  *out = CallJson(id, name, std::move(arguments));
}

}  // namespace trellis
