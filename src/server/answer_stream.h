// AnswerStream: an answer that is written as it comes. Internal to server/.
#pragma once

#include <string>
#include <string_view>

#include "api/answer_writer.h"
#include "server/session.h"

namespace trellis {

// On the connection's strand. Where a method returns false the connection is to be closed.
class AnswerStream {
 public:
  AnswerStream(const HttpRequest& request, Stream& stream, const ServerState& state)
      : request_(request), stream_(stream), state_(state) {}

  // The header, unless it has been written.
  net::awaitable<bool> Begin(std::string_view content_type);
  bool has_begun() const { return has_begun_; }
  net::awaitable<bool> Write(std::string text);
  net::awaitable<bool> End();
  // What is to be written where something has gone wrong.
  std::string ErrorEvent(AnswerWriter& writer, ApiError error) const;
  // Instead of an answer, or of what is left of it: a reply of its own if nothing is written yet.
  // Only else it needs the writer.
  net::awaitable<bool> Fail(AnswerWriter* writer, const ApiError& error);

 private:
  // HTTP/1.0 knows no chunks: there the end of the connection is the end of the answer.
  bool chunked() const { return request_.version() >= 11; }
  bool keep_alive() const { return chunked() && request_.keep_alive() && !state_.draining; }

  const HttpRequest& request_;
  Stream& stream_;
  const ServerState& state_;
  bool has_begun_ = false;
};

}  // namespace trellis
