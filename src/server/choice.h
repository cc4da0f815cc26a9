// One of the choices of an answer, as it grows. Internal to server/.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "api/responses.h"
#include "engine/engine.h"
#include "server/job.h"
#include "text/answer_reader.h"
#include "text/stream_decoder.h"

namespace trellis {

struct Choice {
  Choice(const Tokenizer& tokenizer, const Job& job)
      : decoder(tokenizer, job.stops(), SpecialTokens::kAsText, job.answer_format->shown_tokens),
        reader(job.answer_format->syntax) {}
  StreamDecoder decoder;
  AnswerReader reader;
  void Add(const ChoiceText& piece) {
    text += piece.text;
    thoughts += piece.thoughts;
    for (const AnswerDelta::Call& call : piece.calls) {
      if (call.index == calls.size()) {
        calls.push_back(call);
      } else {
        calls[call.index].arguments += call.arguments;
      }
    }
  }

  std::optional<RequestId> request;
  // All of it, when not streaming, or for the chat that is kept.
  std::string text, thoughts;
  std::vector<AnswerDelta::Call> calls;
  size_t offset = 0;  // bytes of its tokens
  size_t num_tokens = 0;
  double logprob = 0;                  // of its tokens together, if they have any
  std::vector<LogprobEntry> logprobs;  // in a stream: of what is unread
  bool is_unread = false;              // tokens have come since the last piece
  std::vector<float> embedding;
  const char* finish_reason = nullptr;
  Usage usage;  // of it alone, at its end
  Timings timings;
  bool is_admitted = false;
  bool done = false;
};

}  // namespace trellis
