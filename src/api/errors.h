// Errors as OpenAI's clients know them: an HTTP status and {"error": {message, type, param, code}}.
//
// The same body is used for every route. `type` is what client libraries switch on, `code` what
// programs compare, `param` the field to look at ("messages[1].content"), `message` is for people.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"
#include "base/status.h"

namespace trellis {

// What a client sent, or the start of it, for a message.
std::string Excerpt(std::string_view text, size_t max_bytes = 60);

struct ApiError {
  int http_status = 500;
  std::string type;     // invalid_request_error, authentication_error, ..., server_error
  std::string code;     // machine-readable; empty: null
  std::string param;    // the field that is wrong; empty: null
  std::string message;  // what happened and what to do
  std::string request_id =
      {};  // of the HTTP request, so that people can ask about it; may be empty
};

// What a handler gets from api/: a value, or the error to answer with.
template <typename T>
class [[nodiscard]] ApiResult {
 public:
  ApiResult(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  ApiResult(ApiError error) : value_(std::move(error)) {}  // NOLINT: implicit by design

  bool ok() const { return value_.index() == 0; }
  T& value() {
    TRELLIS_CHECK(ok());
    return *std::get_if<0>(&value_);
  }
  const ApiError& error() const {
    TRELLIS_CHECK(!ok());
    return *std::get_if<1>(&value_);
  }

 private:
  std::variant<T, ApiError> value_;
};

// The HTTP status of each code:
//
//   kInvalidArgument    400   invalid_request_error  invalid_value
//   kUnsupported        400   invalid_request_error  unsupported (never 5xx: clients retry those)
//   kTooLarge           400   invalid_request_error  context_length_exceeded
//   kNotFound           404   invalid_request_error  not_found
//   kUnauthenticated    401   authentication_error   invalid_api_key
//   kResourceExhausted  503   overloaded_error       queue_full
//   kUnavailable        503   unavailable_error      unavailable
//   kCancelled          499   cancelled_error        cancelled
//   kDeadlineExceeded   504   timeout_error          timeout
//   kDataLoss, kIo, kInternal  500  server_error     data_loss, io_error, internal_error
//
// REQUIRES: !status.ok().
ApiError ErrorFromStatus(const Status& status, std::string param = {});

// 400 invalid_request_error: `param` is wrong.
ApiError InvalidField(std::string param, std::string message);
// What is wrong with the model that a request names: as ErrorFromStatus, but what is not there is
// a 404 model_not_found.
ApiError ErrorOfModel(const Status& status);
// 400: `param` is understood, and this server cannot do what it asks for.
ApiError UnsupportedField(std::string param, std::string message);
// Any other: an error of the transport (404 for a path, 405, 413, 431, ...).
ApiError TransportError(int http_status, std::string code, std::string message);

// How an API says what went wrong:
//   kOpenAi     {"error": {message, type, param, code}}
//   kAnthropic  {"type": "error", "error": {type, message}}, with Anthropic's types
//   kOllama     {"error": message}
// and beside these "request_id", where Anthropic has it, if there is one.
enum class ErrorForm { kOpenAi, kAnthropic, kOllama };
// As JSON text. Always valid UTF-8.
std::string ErrorBody(const ApiError& error, ErrorForm form = ErrorForm::kOpenAi);

}  // namespace trellis
