// trellis run: one answer on the terminal, streamed.
#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <functional>
#include <iostream>
#include <iterator>
#include <limits>
#include <mutex>
#include <optional>
#include <random>

#include "commands.h"
#include "console.h"
#include "flags.h"
#include "loading.h"
#include "text/stream_decoder.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  std::optional<std::string> prompt;
  bool chat = false;
  size_t max_tokens = 0;
  SamplingParams sampling;
  int64_t seed = -1;
};

// Set by the first Ctrl-C; a second one ends the process.
volatile std::sig_atomic_t interrupted = 0;

void CatchInterrupt() {
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);
  sigaction(SIGINT, &action, nullptr);
}

// Tokens from the engine's thread to this one.
class Printer : public GenerationSink {
 public:
  void OnToken(const SampledToken& token) override {
    std::lock_guard lock(mutex_);
    tokens_.push_back(token.token);
    wake_.notify_one();
  }
  void OnFinish(FinishReason, const Status& status, const GenerateTimings& timings) override {
    std::lock_guard lock(mutex_);
    status_ = status;
    timings_ = timings;
    finished_ = true;
    wake_.notify_one();
  }

  // `cancel` is called once if the user interrupts.
  Status PrintAll(const Tokenizer& tokenizer, const std::function<void()>& cancel) {
    StreamDecoder decoder(tokenizer, {}, SpecialTokens::kAsText);
    bool cancelled = false;
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, std::chrono::milliseconds(50),
                     [&] { return finished_ || !tokens_.empty(); });
      if (interrupted != 0 && !cancelled) {
        cancelled = true;
        lock.unlock();
        cancel();
        continue;
      }
      if (tokens_.empty() && !finished_) continue;
      if (tokens_.empty()) break;
      std::deque<TokenId> tokens;
      tokens.swap(tokens_);
      lock.unlock();
      for (TokenId token : tokens) fmt::print("{}", decoder.Push(token));
      FlushOutput();
    }
    fmt::print("{}\n", decoder.Finish());
    FlushOutput();
    const auto rate = [](size_t n, double ms) {
      return ms > 0 ? static_cast<double>(n) * 1000 / ms : 0.0;
    };
    Say("prompt: {} tokens, {:.1f} tok/s; answer: {} tokens, {:.1f} tok/s\n",
        timings_.prompt_tokens, rate(timings_.computed_tokens, timings_.prompt.count()),
        timings_.generated_tokens, rate(timings_.generated_tokens, timings_.predicted.count()));
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<TokenId> tokens_;
  Status status_;
  GenerateTimings timings_;
  bool finished_ = false;
};

Status Answer(Flags flags) {
  std::string text = flags.prompt.value_or("-");
  if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
  if (text.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  TRELLIS_RETURN_IF_ERROR(ValidateSampling(flags.sampling, std::numeric_limits<TokenId>::max()));
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Service> service, LoadService(flags.model, {}));
  GenerateRequest request;
  if (flags.chat) {
    ChatMessage message;
    message.role = "user";
    message.content = text;
    TRELLIS_ASSIGN_OR_RETURN(ChatPrompt prompt, service->chat_template->Render({message}));
    request.prompt = std::move(prompt.tokens);
  } else {
    request.prompt =
        service->tokenizer->Encode(text, AddSpecial::kByVocabulary, SpecialTokens::kParse);
  }
  if (request.prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  request.end_tokens = service->end_tokens;
  request.max_tokens = flags.max_tokens;
  request.sampling = flags.sampling;
  service->BanSuppressed(&request.sampling);
  request.sampling.seed =
      flags.seed == -1 ? std::random_device{}() : static_cast<uint64_t>(flags.seed);
  auto printer = std::make_shared<Printer>();
  TRELLIS_ASSIGN_OR_RETURN(RequestId id, service->engine->Submit(std::move(request), printer));
  CatchInterrupt();
  return printer->PrintAll(*service->tokenizer, [&] { service->engine->Cancel(id); });
}

}  // namespace

void AddRun(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* run = app.add_subcommand("run", "Answer one prompt on the terminal");
  AddModelFlag(run, &flags->model);
  run->add_option("prompt", flags->prompt, "The prompt; none or - reads standard input");
  run->add_flag("--chat", flags->chat, "Put the prompt into the model's chat template");
  run->add_option("-n,--max-tokens", flags->max_tokens,
                  "Tokens at most (default: to the end of the context)")
      ->check(Between(1, 1 << 30))
      ->type_name("N");
  AddThreadsFlag(run, &flags->model);
  AddKvTypeFlag(run, &flags->model);
  AddCacheFlags(run, &flags->model);
  SamplingParams& sampling = flags->sampling;
  const auto number = [run](const char* name, auto& value, const char* help) {
    return run->add_option(name, value, help)
        ->check(Number())
        ->capture_default_str()
        ->type_name("X");
  };
  number("--temp,--temperature", sampling.temperature, "0 is greedy");
  number("--top-k", sampling.top_k, "Only the k most likely; 0 is off");
  number("--top-p", sampling.top_p, "Only the most likely, up to this probability");
  number("--min-p", sampling.min_p, "Only those with this share of the best one's probability");
  number("--typical-p", sampling.typical_p, "Only the most typical, up to this probability");
  number("--repeat-penalty", sampling.repetition_penalty, "Divides what was said before");
  number("--presence-penalty", sampling.presence_penalty, "Subtracted from what was said before");
  number("--frequency-penalty", sampling.frequency_penalty, "The same, for each time");
  number("--repeat-last-n", sampling.penalty_last_n, "How far penalties look back; -1: all");
  run->add_option("--seed", flags->seed, "Same seed, same text (default: -1, drawn)")
      ->check(Between(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()))
      ->type_name("N");
  run->callback([flags, exit_status] {
    const Status status = Answer(*flags);
    if (interrupted != 0) *exit_status = kExitInterrupted;
    if (status.ok()) return;
    Say("trellis: {}\n", status.message());
    *exit_status = kExitUsage;
  });
}

}  // namespace trellis
