// FieldReader: typed reading of one JSON object. It remembers the first thing that is wrong, so
// that a parser can read all fields in a row and ask once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_text.h"

namespace trellis {

class FieldReader {
 public:
  // `path` is what the object is called in messages: "" for the body, else "stream_options".
  FieldReader(const Json& object, std::string path);

  // The value, or null when it is absent or null.
  const Json* Find(const char* name) const;

  // Each leaves *out alone when the field is absent or null, and reports a value of another type or
  // outside [low, high] (numbers must be finite; integers may be written 3.0).
  void Bool(const char* name, bool* out);
  void String(const char* name, std::string* out);
  void Number(const char* name, double low, double high, float* out);
  void Integer(const char* name, int64_t low, int64_t high, int64_t* out);

  // The same for a value found otherwise; `param` names it.
  void StringValue(const Json& value, const std::string& param, std::string* out);
  void IntegerValue(const Json& value, const std::string& param, int64_t low, int64_t high,
                    int64_t* out);

  // "path.name"
  std::string ParamOf(std::string_view name) const;

  // Keeps the first error.
  void Fail(ApiError error);
  // "`param` must be `expected`, not a string"
  void FailType(const std::string& param, std::string_view expected, const Json& value);
  bool ok() const { return !error_.has_value(); }
  const ApiError& error() const { return *error_; }

 private:
  const Json& object_;
  std::string path_;
  std::optional<ApiError> error_;
};

}  // namespace trellis
