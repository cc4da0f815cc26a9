#include "hub/patience.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

namespace trellis {
namespace {

constexpr int kMaxTries = 5;
constexpr std::chrono::seconds kLongestWait{300};

bool IsBusy(int status) {
  return status == 408 || status == 429 || (status >= 500 && status != 501 && status != 505);
}

// Retry-After in seconds; its other form, a date, is rare and counts as none.
std::chrono::seconds WaitBefore(int failure, const HttpClient::Answer* answer) {
  if (answer != nullptr) {
    const std::string& text = answer->header("retry-after");
    int64_t seconds = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (!text.empty() && parsed.ec == std::errc() && seconds >= 0) {
      return std::chrono::seconds(std::min(seconds, kLongestWait.count()));
    }
  }
  return std::chrono::seconds(1 << (failure - 1));
}

Status Wait(std::chrono::seconds time, const Patience& patience) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
    if (patience.is_cancelled()) return Status(StatusCode::kCancelled, "interrupted");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return Status::Ok();
}

// What the hub says in a header, or in the "error" of a JSON body, on one line.
std::string WordsOf(const HttpClient::Answer& answer) {
  std::string words = answer.header("x-error-message");
  if (words.empty()) {
    const auto json = nlohmann::json::parse(answer.body, nullptr, false);
    const auto error = json.is_object() ? json.find("error") : json.end();
    if (json.is_object() && error != json.end()) {
      if (error->is_string()) words = error->get<std::string>();
      if (error->is_object() && error->contains("message") && (*error)["message"].is_string()) {
        words = (*error)["message"].get<std::string>();
      }
    }
  }
  std::replace_if(
      words.begin(), words.end(), [](unsigned char c) { return c < 32; }, ' ');
  return words.size() > 300 ? words.substr(0, 300) : words;
}

}  // namespace

Result<HttpClient::Answer> SendPatiently(HttpClient& client, const Patience& patience,
                                         const std::function<HttpClient::Request()>& make) {
  for (int failures = 0;;) {
    HttpClient::Request request = make();
    size_t received = 0;
    if (request.on_body) {
      request.on_body = [&received, take = std::move(request.on_body)](
                            const HttpClient::Answer& so_far, std::string_view bytes) {
        received += bytes.size();
        return take(so_far, bytes);
      };
    }
    Result<HttpClient::Answer> answer = client.Send(request);
    if (answer.ok() && !IsBusy(answer->status)) return answer;
    const bool broke_off = !answer.ok() && answer.status().code() == StatusCode::kUnavailable &&
                           (received > 0 || failures > 0);
    if (!answer.ok() && !broke_off) return answer.status();
    if (received > 0) failures = 0;
    const Status error = answer.ok() ? ErrorOf(*answer) : answer.status();
    if (++failures == kMaxTries) return Status(StatusCode::kUnavailable, error.message());
    const auto wait = WaitBefore(failures, answer.ok() ? &*answer : nullptr);
    patience.warn(fmt::format("{}; trying again in {} s", error.message(), wait.count()));
    TRELLIS_RETURN_IF_ERROR(Wait(wait, patience));
  }
}

Status ErrorOf(const HttpClient::Answer& answer) {
  const std::string words = WordsOf(answer);
  const std::string message = fmt::format("{} answers {}{}", WithoutSecrets(answer.url),
                                          answer.status, words.empty() ? "" : " (" + words + ")");
  switch (answer.status) {
    case 401:
    case 403:
      return Status(StatusCode::kUnauthenticated, message);
    case 404:
      return Status(StatusCode::kNotFound, message);
    default:
      return Status(StatusCode::kUnavailable, message);
  }
}

}  // namespace trellis
