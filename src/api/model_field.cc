#include "api/model_field.h"

#include <optional>
#include <utility>

#include "api/field_reader.h"
#include "api/json_text.h"

namespace trellis {
namespace {

// Takes one member of the outermost object, as a value without what it may hold, and ends there.
class MemberReader : public nlohmann::json_sax<Json> {
 public:
  explicit MemberReader(std::string_view name) : name_(name) {}

  std::optional<Json> value;
  bool is_object = false;

  bool null() override { return Take(nullptr); }
  bool boolean(bool v) override { return Take(v); }
  bool number_integer(number_integer_t v) override { return Take(v); }
  bool number_unsigned(number_unsigned_t v) override { return Take(v); }
  bool number_float(number_float_t v, const string_t&) override { return Take(v); }
  bool string(string_t& v) override { return Take(std::move(v)); }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return Begin(Json::object()); }
  bool start_array(size_t) override { return Begin(Json::array()); }
  bool end_object() override { return End(); }
  bool end_array() override { return End(); }
  bool key(string_t& key) override {
    is_next_ = depth_ == 1 && key == name_;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) override {
    return false;
  }

 private:
  bool Take(Json v) {
    if (is_next_) value = std::move(v);
    return !is_next_ && depth_ > 0;
  }
  bool Begin(Json empty) {
    if (depth_ == 0) is_object = empty.is_object();
    if (is_next_ || (depth_ == 0 && !is_object)) return Take(std::move(empty));
    depth_++;
    return true;
  }
  bool End() {
    depth_--;
    return true;
  }

  const std::string_view name_;
  size_t depth_ = 0;
  bool is_next_ = false;  // the value that comes is the member's
};

}  // namespace

ApiResult<std::string> ModelNamedIn(std::string_view body) {
  std::string name;
  if (body.empty() || body == "null") return name;
  MemberReader member("model");
  const bool is_whole = Json::sax_parse(body, &member);
  if (!member.value) {
    if (is_whole && member.is_object) return name;
    ApiResult<Json> json = ParseJson(body);
    if (!json.ok()) return json.error();
    const FieldReader reader(json.value(), "");
    if (!reader.ok()) return reader.error();
    return name;
  }
  const Json object = {{"model", *member.value}};
  FieldReader reader(object, "");
  reader.String("model", &name);
  if (!reader.ok()) return reader.error();
  return name;
}

bool AsksForStream(std::string_view body) {
  MemberReader member("stream");
  Json::sax_parse(body, &member);
  return member.value && *member.value == true;
}

}  // namespace trellis
