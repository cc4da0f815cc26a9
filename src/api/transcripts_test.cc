// The bytes of each stream, for one answer that has everything: thoughts, text, calls whose
// arguments come in pieces, a wait. They are in tests/transcripts, where the makers' own SDKs read
// them too (tests/clients). After a change that is meant, TRELLIS_WRITE_TRANSCRIPTS=1 writes them
// anew.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include "api/answer_writer.h"
#include "api/openai_responses.h"

namespace trellis {
namespace {

AnswerHead Head(AnswerForm form, std::string id) {
  return {.form = form,
          .id = std::move(id),
          .created = 1785000000,
          .model = "fake",
          .fingerprint = "fp_test",
          .seed = 11};
}

constexpr Usage kAdmitted = {.prompt_tokens = 20, .cached_tokens = 16};
constexpr Usage kUsage = {
    .prompt_tokens = 20, .cached_tokens = 16, .completion_tokens = 30, .reasoning_tokens = 5};

Timings EndTimings() {
  return {.cached_tokens = 16,
          .computed_tokens = 4,
          .predicted_tokens = 31,
          .queued_ms = 1,
          .prompt_ms = 2,
          .predicted_ms = 62};
}

std::vector<ChoiceText> ChatPieces() {
  return {
      {.thoughts = "Ulm, "},
      {.thoughts = "then Rome.\n"},
      {.text = "I \"look\"\n"},
      {.text = "it up: \xC3\xA9\xE2\x9C\x93\xF0\x9F\x8C\xA7"},
      {.calls = {{.index = 0, .id = "call_1", .name = "get_weather", .arguments = "{\"city\":"}}},
      {.calls =
           {{.index = 0, .arguments = " \"Ulm\"}"},
            {.index = 1, .id = "call_2", .name = "get_weather", .arguments = "{\"city\": \"R"}}},
      {.calls = {{.index = 1, .arguments = "ome\"}"}}, .finish_reason = "tool_calls"}};
}

// Two answers, in turns.
std::vector<ChoiceText> TextPieces() {
  std::vector<ChoiceText> pieces = {{.index = 0, .text = " blue"},
                                    {.index = 1, .text = " \"gr"},
                                    {.index = 0, .finish_reason = "stop"},
                                    {.index = 1, .text = "ey\"\n", .finish_reason = "length"}};
  float logprob = -0.25f;
  for (ChoiceText& piece : pieces) {
    piece.has_logprobs = true;
    if (piece.finish_reason != nullptr) {
      piece.usage = kUsage;
      piece.timings = EndTimings();
    }
    if (piece.text.empty()) continue;
    piece.logprobs = {{.chosen = {piece.text, logprob},
                       .top = {{piece.text, logprob}, {"\xE2\x80", -9}},
                       .text_offset = piece.finish_reason == nullptr ? size_t{0} : size_t{4}}};
    logprob *= 2;
  }
  return pieces;
}

std::string Stream(AnswerWriter& writer, const std::vector<ChoiceText>& pieces) {
  std::string out = writer.Begin(pieces.front().has_logprobs ? 2 : 1, kAdmitted);
  out += writer.KeepAlive();
  const Timings timings = EndTimings();
  for (const ChoiceText& piece : pieces)
    out += writer.Piece(piece, &piece == &pieces.back() ? &timings : nullptr);
  return out + writer.End(kUsage, timings);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void Compare(const std::string& name, const std::string& stream) {
  const std::string path = std::string(TRELLIS_TRANSCRIPTS "/") + name;
  if (std::getenv("TRELLIS_WRITE_TRANSCRIPTS") != nullptr)
    std::ofstream(path, std::ios::binary) << stream;
  EXPECT_EQ(stream, ReadFile(path)) << path << " is what clients have been tried with";
}

TEST(TranscriptsTest, OpenAiChat) {
  const auto writer =
      NewOpenAiWriter(Head(AnswerForm::kChat, "chatcmpl-1"), {.include_usage = true});
  Compare("openai_chat.sse", Stream(*writer, ChatPieces()));
}

TEST(TranscriptsTest, OpenAiCompletion) {
  const auto writer = NewOpenAiWriter(Head(AnswerForm::kCompletion, "cmpl-1"), {});
  Compare("openai_completion.sse", Stream(*writer, TextPieces()));
}

TEST(TranscriptsTest, OpenAiResponses) {
  auto request = ParseResponsesRequest(R"({"input":"a","instructions":"Be brief."})");
  const auto writer =
      NewResponsesWriter(Head(AnswerForm::kChat, "resp_1"), request.value().repeated);
  Compare("openai_responses.sse", Stream(*writer, ChatPieces()));
}

TEST(TranscriptsTest, AnthropicMessages) {
  const auto writer = NewAnthropicWriter(Head(AnswerForm::kChat, "msg_1"), /*cached_to=*/18);
  Compare("anthropic_messages.sse", Stream(*writer, ChatPieces()));
}

TEST(TranscriptsTest, OllamaChat) {
  const auto writer = NewOllamaWriter(Head(AnswerForm::kChat, "chatcmpl-1"), OllamaForm::kChat);
  const std::string stream = Stream(*writer, ChatPieces());
  const std::regex time(R"("created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")");
  Compare("ollama_chat.ndjson",
          std::regex_replace(stream, time, R"("created_at":"2026-07-25T17:20:00.000Z")"));
}

TEST(TranscriptsTest, LlamaCompletion) {
  const auto writer = NewLlamaWriter(Head(AnswerForm::kCompletion, "cmpl-1"), {});
  Compare("llama_completion.sse", Stream(*writer, TextPieces()));
}

TEST(TranscriptsTest, AnErrorInTheMiddle) {
  const ApiError error = ErrorFromStatus(Status(StatusCode::kDeadlineExceeded, "it took too long"));
  const auto openai = NewOpenAiWriter(Head(AnswerForm::kChat, "chatcmpl-1"), {});
  const auto anthropic = NewAnthropicWriter(Head(AnswerForm::kChat, "msg_1"), 0);
  const auto ollama = NewOllamaWriter(Head(AnswerForm::kChat, "chatcmpl-1"), OllamaForm::kChat);
  const auto begun = [&](AnswerWriter& writer) {
    return writer.Begin(1, kAdmitted) + writer.KeepAlive() + writer.Error(error);
  };
  Compare("openai_chat_error.sse", begun(*openai));
  Compare("anthropic_messages_error.sse", begun(*anthropic));
  Compare("ollama_chat_error.ndjson", begun(*ollama));
}

}  // namespace
}  // namespace trellis
