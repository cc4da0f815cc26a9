// Status and Result<T>: how everything that a request, a file or the machine can cause is reported.
//
// A Status is a code from a small set, which maps one-to-one to an HTTP status (api/errors.h) and
// to an exit status, and a message for a person: what happened, where, and what to do about it.
// Bugs are not Statuses: they are TRELLIS_CHECKs (base/check.h).
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace trellis {

enum class StatusCode {
  kOk,
  kInvalidArgument,    // the caller's request can never work
  kNotFound,           // a named thing does not exist
  kUnauthenticated,    // no key, or a wrong one
  kTooLarge,           // longer than a limit (context, body)
  kResourceExhausted,  // no room now; may work later
  kUnavailable,        // loading or draining; may work later
  kCancelled,          // the caller went away
  kDeadlineExceeded,   // it took longer than it was given
  kDataLoss,           // a file is corrupt or truncated
  kUnsupported,        // valid, but not served by this build or model
  kIo,                 // the operating system refused
  kInternal,           // an error of ours that stayed inside one request
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  static Status Ok() { return Status(); }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

// Either a value or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit by design
    TRELLIS_CHECK(!status_.ok());
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }

  T& value() & {
    TRELLIS_CHECK(ok());
    return *value_;
  }
  const T& value() const& {
    TRELLIS_CHECK(ok());
    return *value_;
  }
  T&& value() && {
    TRELLIS_CHECK(ok());
    return *std::move(value_);
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }

 private:
  Status status_;
  std::optional<T> value_;
};

#define TRELLIS_CONCAT_INNER(a, b) a##b
#define TRELLIS_CONCAT(a, b) TRELLIS_CONCAT_INNER(a, b)

// Returns the Status of `expr` from the enclosing function unless it is ok.
#define TRELLIS_RETURN_IF_ERROR(expr)                \
  do {                                               \
    ::trellis::Status trellis_status = (expr);       \
    if (!trellis_status.ok()) return trellis_status; \
  } while (0)

// TRELLIS_ASSIGN_OR_RETURN(auto x, Make()): x, or return Make()'s Status.
#define TRELLIS_ASSIGN_OR_RETURN(lhs, expr) \
  TRELLIS_ASSIGN_OR_RETURN_IMPL(TRELLIS_CONCAT(trellis_result_, __LINE__), lhs, expr)
#define TRELLIS_ASSIGN_OR_RETURN_IMPL(result, lhs, expr) \
  auto result = (expr);                                  \
  if (!result.ok()) return result.status();              \
  lhs = std::move(result).value()

}  // namespace trellis
