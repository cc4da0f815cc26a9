#include "server/answer_stream.h"

#include <fmt/format.h>

#include <sstream>
#include <utility>

namespace trellis {

net::awaitable<bool> AnswerStream::Begin(std::string_view content_type) {
  if (std::exchange(has_begun_, true)) co_return true;
  http::response<http::empty_body> response{http::status::ok, request_.version()};
  SetCommonHeaders(request_, state_, &response);
  response.set(http::field::content_type, content_type);
  response.set(http::field::cache_control, "no-cache");
  response.keep_alive(keep_alive());
  response.chunked(chunked());
  std::ostringstream text;
  text << response.base();
  const std::string header = text.str();
  co_return co_await WriteText(stream_, header, state_);
}

net::awaitable<bool> AnswerStream::Write(std::string text) {
  if (text.empty()) co_return true;  // a chunk of nothing would be the last one
  if (chunked()) text = fmt::format("{:x}\r\n{}\r\n", text.size(), text);
  co_return co_await WriteText(stream_, text, state_);
}

net::awaitable<bool> AnswerStream::End() {
  if (!chunked()) co_return false;
  co_return co_await WriteText(stream_, "0\r\n\r\n", state_) && keep_alive();
}

std::string AnswerStream::ErrorEvent(AnswerWriter& writer, ApiError error) const {
  LogError(request_, error, state_);
  error.request_id = RequestIdOf(request_);
  return writer.Error(error);
}

net::awaitable<bool> AnswerStream::Fail(AnswerWriter* writer, const ApiError& error) {
  if (!has_begun_) co_return co_await WriteReply(stream_, request_, ErrorReply(error), state_);
  std::string text = ErrorEvent(*writer, error);
  if (!co_await Write(std::move(text))) co_return false;
  co_return co_await End();
}

}  // namespace trellis
