#include "api/field_reader.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

namespace trellis {
namespace {

std::string_view NameOfType(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

// The number as an integer, if it is one that an int64_t holds.
std::optional<int64_t> AsInteger(const Json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  const auto number = value.get<double>();
  if (std::trunc(number) != number || std::abs(number) > 9e15) return std::nullopt;
  return static_cast<int64_t>(number);
}

}  // namespace

FieldReader::FieldReader(const Json& object, std::string path)
    : object_(object), path_(std::move(path)) {
  if (!object_.is_object()) FailType(path_, "an object", object_);
}

const Json* FieldReader::Find(const char* name) const {
  if (!object_.is_object()) return nullptr;
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

std::string FieldReader::ParamOf(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
}

void FieldReader::Fail(ApiError error) {
  if (!error_) error_ = std::move(error);
}

void FieldReader::FailType(const std::string& param, std::string_view expected, const Json& value) {
  ApiError error =
      InvalidField(param, fmt::format("{} must be {}, not {}", param.empty() ? "the body" : param,
                                      expected, NameOfType(value)));
  error.code = "invalid_type";
  Fail(std::move(error));
}

void FieldReader::Bool(const char* name, bool* out) {
  const Json* value = Find(name);
  if (value == nullptr) return;
  if (!value->is_boolean()) return FailType(ParamOf(name), "a boolean", *value);
  *out = value->get<bool>();
}

void FieldReader::String(const char* name, std::string* out) {
  const Json* value = Find(name);
  if (value != nullptr) StringValue(*value, ParamOf(name), out);
}

void FieldReader::StringValue(const Json& value, const std::string& param, std::string* out) {
  if (!value.is_string()) return FailType(param, "a string", value);
  *out = value.get<std::string>();
}

void FieldReader::Number(const char* name, double low, double high, float* out) {
  const Json* value = Find(name);
  if (value == nullptr) return;
  const std::string param = ParamOf(name);
  if (!value->is_number()) return FailType(param, "a number", *value);
  const auto number = value->get<double>();
  if (!(number >= low && number <= high)) {
    return Fail(InvalidField(
        param, fmt::format("{} must be between {} and {}, not {}", param, low, high, number)));
  }
  *out = static_cast<float>(number);
}

void FieldReader::Integer(const char* name, int64_t low, int64_t high, int64_t* out) {
  const Json* value = Find(name);
  if (value != nullptr) IntegerValue(*value, ParamOf(name), low, high, out);
}

void FieldReader::IntegerValue(const Json& value, const std::string& param, int64_t low,
                               int64_t high, int64_t* out) {
  if (!value.is_number()) return FailType(param, "an integer", value);
  const std::optional<int64_t> number = AsInteger(value);
  if (!number || *number < low || *number > high) {
    return Fail(InvalidField(param, fmt::format("{} must be an integer from {} to {}, not {}",
                                                param, low, high, value.dump())));
  }
  *out = *number;
}

}  // namespace trellis
