#include "api/errors.h"

#include <nlohmann/json.hpp>

#include "api/json_text.h"

namespace trellis {
namespace {

struct Mapping {
  int http_status;
  const char* type;
  const char* code;
};

Mapping MappingOf(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      break;
    case StatusCode::kInvalidArgument:
      return {400, "invalid_request_error", "invalid_value"};
    case StatusCode::kUnsupported:
      return {400, "invalid_request_error", "unsupported"};
    case StatusCode::kTooLarge:
      return {400, "invalid_request_error", "context_length_exceeded"};
    case StatusCode::kNotFound:
      return {404, "invalid_request_error", "not_found"};
    case StatusCode::kUnauthenticated:
      return {401, "authentication_error", "invalid_api_key"};
    case StatusCode::kResourceExhausted:
      return {503, "overloaded_error", "queue_full"};
    case StatusCode::kUnavailable:
      return {503, "unavailable_error", "unavailable"};
    case StatusCode::kCancelled:
      return {499, "cancelled_error", "cancelled"};
    case StatusCode::kDeadlineExceeded:
      return {504, "timeout_error", "timeout"};
    case StatusCode::kDataLoss:
      return {500, "server_error", "data_loss"};
    case StatusCode::kIo:
      return {500, "server_error", "io_error"};
    case StatusCode::kInternal:
      return {500, "server_error", "internal_error"};
  }
  TRELLIS_CHECK(false);  // kOk is no error
}

OrderedJson TextOrNull(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

const char* AnthropicType(const ApiError& error) {
  switch (error.http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 503:
      return "overloaded_error";
    default:
      return error.http_status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

std::string Excerpt(std::string_view text, size_t max_bytes) {
  if (text.size() <= max_bytes) return ValidUtf8(text);
  return ValidUtf8(text.substr(0, max_bytes)) + "...";
}

ApiError ErrorFromStatus(const Status& status, std::string param) {
  const Mapping mapping = MappingOf(status.code());
  return {.http_status = mapping.http_status,
          .type = mapping.type,
          .code = mapping.code,
          .param = std::move(param),
          .message = status.message()};
}

ApiError InvalidField(std::string param, std::string message) {
  return {.http_status = 400,
          .type = "invalid_request_error",
          .code = "invalid_value",
          .param = std::move(param),
          .message = std::move(message)};
}

ApiError ErrorOfModel(const Status& status) {
  ApiError error = ErrorFromStatus(status, "model");
  if (status.code() == StatusCode::kNotFound) error.code = "model_not_found";
  return error;
}

ApiError UnsupportedField(std::string param, std::string message) {
  return {.http_status = 400,
          .type = "invalid_request_error",
          .code = "unsupported",
          .param = std::move(param),
          .message = std::move(message)};
}

ApiError TransportError(int http_status, std::string code, std::string message) {
  return {.http_status = http_status,
          .type = http_status >= 500 ? "server_error" : "invalid_request_error",
          .code = std::move(code),
          .param = {},
          .message = std::move(message)};
}

std::string ErrorBody(const ApiError& error, ErrorForm form) {
  OrderedJson body = OrderedJson::object();
  switch (form) {
    case ErrorForm::kOllama:
      body["error"] = error.message;
      break;
    case ErrorForm::kAnthropic:
      body["type"] = "error";
      body["error"] = {{"type", AnthropicType(error)}, {"message", error.message}};
      break;
    case ErrorForm::kOpenAi:
      body["error"] = {{"message", error.message},
                       {"type", error.type},
                       {"param", TextOrNull(error.param)},
                       {"code", TextOrNull(error.code)}};
      break;
  }
  if (!error.request_id.empty()) body["request_id"] = error.request_id;
  return ToText(body);
}

}  // namespace trellis
