// trellis run: one answer on the terminal, streamed.
#include <fmt/format.h>

#include <condition_variable>
#include <cstdio>
#include <deque>
#include <iostream>
#include <iterator>
#include <mutex>
#include <optional>
#include <random>

#include "commands.h"
#include "loading.h"
#include "text/stream_decoder.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  std::string prompt;
  bool chat = false;
  size_t max_tokens = 0;
  SamplingParams sampling;
  std::optional<uint64_t> seed;
};

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

  Status PrintAll(const Tokenizer& tokenizer) {
    StreamDecoder decoder(tokenizer, {}, SpecialTokens::kAsText);
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return finished_ || !tokens_.empty(); });
      if (tokens_.empty()) break;
      std::deque<TokenId> tokens;
      tokens.swap(tokens_);
      lock.unlock();
      for (TokenId token : tokens) fmt::print("{}", decoder.Push(token));
      std::fflush(stdout);
    }
    fmt::print("{}\n", decoder.Finish());
    const auto rate = [](size_t n, double ms) {
      return ms > 0 ? static_cast<double>(n) * 1000 / ms : 0.0;
    };
    fmt::print(stderr, "prompt: {} tokens, {:.1f} tok/s; answer: {} tokens, {:.1f} tok/s\n",
               timings_.prompt_tokens, rate(timings_.computed_tokens, timings_.prompt.count()),
               timings_.generated_tokens,
               rate(timings_.generated_tokens, timings_.predicted.count()));
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
  if (flags.prompt.empty() || flags.prompt == "-") {
    flags.prompt.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Service> service, LoadService(flags.model, {}));
  GenerateRequest request;
  if (flags.chat) {
    ChatMessage message;
    message.role = "user";
    message.content = flags.prompt;
    TRELLIS_ASSIGN_OR_RETURN(ChatPrompt prompt, service->chat_template->Render({message}, ""));
    request.prompt = std::move(prompt.tokens);
  } else {
    request.prompt =
        service->tokenizer->Encode(flags.prompt, AddSpecial::kByVocabulary, SpecialTokens::kParse);
  }
  if (request.prompt.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  request.end_tokens = service->end_tokens;
  request.max_tokens = flags.max_tokens;
  request.sampling = flags.sampling;
  request.sampling.seed = flags.seed ? *flags.seed : std::random_device{}();
  auto printer = std::make_shared<Printer>();
  TRELLIS_ASSIGN_OR_RETURN(RequestId id, service->engine->Submit(std::move(request), printer));
  (void)id;
  return printer->PrintAll(*service->tokenizer);
}

}  // namespace

void AddRun(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* run = app.add_subcommand("run", "Answer one prompt on the terminal");
  run->add_option("-m,--model", flags->model.path, "GGUF file")->required()->type_name("FILE");
  run->add_option("prompt", flags->prompt, "The prompt; none or - reads standard input");
  run->add_flag("--chat", flags->chat, "Put the prompt into the model's chat template");
  run->add_option("-n,--max-tokens", flags->max_tokens,
                  "Tokens at most (default: to the end of the context)");
  run->add_option("-t,--threads", flags->model.threads, "Compute threads (default: physical cores)")
      ->check(CLI::Range(1, 1024));
  run->add_option("-c,--ctx-size", flags->model.context_size,
                  "Longest context in tokens (default: the model's)");
  run->add_option("--kv-cache", flags->model.kv_cache, "Memory for keys and values")
      ->type_name("SIZE");
  run->add_option("--temperature", flags->sampling.temperature, "0 is greedy")
      ->capture_default_str();
  run->add_option("--top-k", flags->sampling.top_k, "0 is off")->capture_default_str();
  run->add_option("--top-p", flags->sampling.top_p)->capture_default_str();
  run->add_option("--min-p", flags->sampling.min_p)->capture_default_str();
  run->add_option("--typical-p", flags->sampling.typical_p)->capture_default_str();
  run->add_option("--repeat-penalty", flags->sampling.repetition_penalty)->capture_default_str();
  run->add_option("--presence-penalty", flags->sampling.presence_penalty)->capture_default_str();
  run->add_option("--frequency-penalty", flags->sampling.frequency_penalty)->capture_default_str();
  run->add_option("--seed", flags->seed, "Same seed, same text (default: drawn)");
  run->callback([flags, exit_status] {
    const Status status = Answer(*flags);
    if (status.ok()) return;
    fmt::print(stderr, "trellis: {}\n", status.message());
    *exit_status = kExitUsage;
  });
}

}  // namespace trellis
