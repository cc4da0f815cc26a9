#include "api/format_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>

#include "api/tool_fields.h"

namespace trellis {
namespace {

constexpr size_t kMaxFormatBytes = 256u << 10;

// Of JSON schemas: what narrows them and no grammar here can say. To let it go would be to promise
// what the answer need not keep.
constexpr std::array<std::string_view, 18> kTooHard = {"not",
                                                       "if",
                                                       "then",
                                                       "else",
                                                       "contains",
                                                       "minContains",
                                                       "maxContains",
                                                       "uniqueItems",
                                                       "multipleOf",
                                                       "minProperties",
                                                       "maxProperties",
                                                       "patternProperties",
                                                       "propertyNames",
                                                       "dependencies",
                                                       "dependentRequired",
                                                       "dependentSchemas",
                                                       "unevaluatedItems",
                                                       "unevaluatedProperties"};
// Of integers alone.
constexpr std::array<std::string_view, 4> kBounds = {"minimum", "maximum", "exclusiveMinimum",
                                                     "exclusiveMaximum"};
// The formats of strings that a grammar can say.
constexpr std::array<std::string_view, 7> kFormats = {"date",  "time",  "date-time", "uuid",
                                                      "uuid1", "uuid4", "uuid5"};
// Members that hold schemas by name, and those that hold one or several.
constexpr std::array<std::string_view, 3> kNamed = {"properties", "$defs", "definitions"};
constexpr std::array<std::string_view, 6> kNested = {"items", "prefixItems", "additionalProperties",
                                                     "anyOf", "oneOf",       "allOf"};

template <size_t kSize>
bool Has(const std::array<std::string_view, kSize>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Whether an answer cannot be held to the member `name` of `schema`.
bool IsTooHard(const Json& schema, const std::string& name, const Json& value) {
  if (Has(kTooHard, name)) return true;
  if (Has(kBounds, name)) return schema.value("type", Json()) != "integer";
  if (name == "format")
    return !value.is_string() || !Has(kFormats, value.get_ref<const std::string&>());
  if (name == "pattern") return schema.contains("minLength") || schema.contains("maxLength");
  // Beside these nothing else is looked at.
  if (name == "anyOf" || name == "oneOf" || name == "allOf" || name == "$ref")
    return schema.contains("properties") || schema.contains("items");
  return false;
}

// Where all schemas were looked at.
bool IsInDefinitions(const std::string& ref) {
  return ref == "#" || ref.starts_with("#/$defs/") || ref.starts_with("#/definitions/");
}

// REQUIRES: no deeper than kMaxJsonDepth, as all that was parsed here.
void RefuseWhatIsTooHard(FieldReader& reader, const std::string& param, const Json& schema) {
  if (schema.is_array()) {
    for (const Json& one : schema) RefuseWhatIsTooHard(reader, param, one);
    return;
  }
  if (!schema.is_object()) return;
  for (const auto& [name, value] : schema.items()) {
    if (IsTooHard(schema, name, value)) {
      return reader.Fail(UnsupportedField(
          param, fmt::format("{}: no answer can be held to \"{}\" here", param, name)));
    }
    if (Has(kNested, name)) {
      RefuseWhatIsTooHard(reader, param, value);
    } else if (name == "$ref" && value.is_string() && !IsInDefinitions(value.get<std::string>())) {
      return reader.Fail(UnsupportedField(
          param,
          fmt::format("{}: \"$ref\" can be #, #/$defs/... or #/definitions/... here", param)));
    } else if (Has(kNamed, name) && value.is_object()) {
      for (const auto& named : value.items()) RefuseWhatIsTooHard(reader, param, named.value());
    }
  }
}

void CheckSize(FieldReader& reader, const std::string& param, std::string_view text) {
  if (text.size() <= kMaxFormatBytes) return;
  reader.Fail(InvalidField(param, fmt::format("{} has {} bytes; at most {} are taken", param,
                                              text.size(), kMaxFormatBytes)));
}

// The member "schema" of what `reader` reads, which is written `text`.
void ReadSchemaIn(FieldReader& reader, std::string_view text, TextFormat* out) {
  const std::string param = reader.ParamOf("schema");
  const Json* schema = reader.Find("schema");
  if (schema == nullptr) return reader.Fail(InvalidField(param, param + " is missing"));
  ReadSchema(reader, param, *schema, RawMember(text, "schema"), out);
}

// `type` is none that asks for a schema: then it has to ask for text.
void CheckIsText(FieldReader& reader, const std::string& type) {
  if (!reader.ok() || type == "text") return;
  const std::string param = reader.ParamOf("type");
  reader.Fail(
      InvalidField(param, fmt::format("{} is \"{}\"; it must be text, json_object or json_schema",
                                      param, Excerpt(type))));
}

void ReadResponseFormat(FieldReader& body, const Json& value, std::string_view text,
                        TextFormat* out) {
  if (!value.is_object()) return body.FailType("response_format", "an object", value);
  FieldReader format(value, "response_format");
  std::string type;
  format.String("type", &type);
  if (type == "json_object") {
    const Json* schema = format.Find("schema");  // llama-server's
    if (schema != nullptr) {
      ReadSchema(format, format.ParamOf("schema"), *schema, RawMember(text, "schema"), out);
    } else {
      TakeAnyObject("response_format", out);
    }
  } else if (type == "json_schema") {
    const std::string param = format.ParamOf("json_schema");
    const Json* holder = format.Find("json_schema");
    if (holder == nullptr) {
      format.Fail(InvalidField(param, param + " is missing"));
    } else if (!holder->is_object()) {
      format.FailType(param, "an object", *holder);
    } else {
      FieldReader inner(*holder, param);
      ReadSchemaIn(inner, RawMember(text, "json_schema"), out);
      if (!inner.ok()) format.Fail(inner.error());
    }
  } else {
    CheckIsText(format, type);
  }
  if (!format.ok()) body.Fail(format.error());
}

}  // namespace

void TakeAnyObject(const std::string& param, TextFormat* out) {
  out->json_schema = R"({"type": "object"})";
  out->param = param;
}

void ReadSchema(FieldReader& reader, const std::string& param, const Json& value,
                std::string_view text, TextFormat* out) {
  if (!value.is_object()) return reader.FailType(param, "a JSON schema", value);
  CheckSize(reader, param, text);
  if (IsUnwieldy(value)) {
    reader.Fail(InvalidField(
        param,
        param + " is too large: an object has too many members, or the name of one is too long"));
  }
  RefuseWhatIsTooHard(reader, param, value);
  out->json_schema = text;
  out->param = param;
}

void ReadFlatFormat(FieldReader& outer, const std::string& param, const Json& value,
                    std::string_view text, TextFormat* out) {
  if (!value.is_object()) return outer.FailType(param, "an object", value);
  FieldReader reader(value, param);
  std::string type;
  reader.String("type", &type);
  if (type == "json_object") {
    TakeAnyObject(param, out);
  } else if (type == "json_schema") {
    ReadSchemaIn(reader, text, out);
  } else {
    CheckIsText(reader, type);
  }
  if (!reader.ok()) outer.Fail(reader.error());
}

void ReadFormat(FieldReader& reader, std::string_view body, TextFormat* out) {
  TextFormat from_response_format, from_json_schema;
  if (const Json* format = reader.Find("response_format")) {
    ReadResponseFormat(reader, *format, RawMember(body, "response_format"), &from_response_format);
  }
  const Json* schema = reader.Find("json_schema");
  if (schema != nullptr && *schema != Json::object()) {
    ReadSchema(reader, "json_schema", *schema, RawMember(body, "json_schema"), &from_json_schema);
  }
  reader.String("grammar", &out->grammar);
  CheckSize(reader, "grammar", out->grammar);
  const int num_given = (from_response_format.json_schema.empty() ? 0 : 1) +
                        (from_json_schema.json_schema.empty() ? 0 : 1) +
                        (out->grammar.empty() ? 0 : 1);
  if (num_given > 1) {
    reader.Fail(InvalidField("response_format",
                             "only one of response_format, json_schema and grammar can be given"));
  }
  TextFormat& schema_format =
      from_json_schema.json_schema.empty() ? from_response_format : from_json_schema;
  out->json_schema = std::move(schema_format.json_schema);
  out->param = out->grammar.empty() ? std::move(schema_format.param) : "grammar";
}

}  // namespace trellis
