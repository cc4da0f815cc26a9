// Chat and text completions: a Job becomes one engine request per choice; their tokens
// come back through a Channel to the connection's coroutine, which decodes, looks for stop strings
// and writes.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <numeric>
#include <optional>

#include "api/model_field.h"
#include "api/requests.h"
#include "api/responses.h"
#include "server/answer_stream.h"
#include "server/channel.h"
#include "server/choice.h"
#include "server/deadline.h"
#include "server/engine_request.h"
#include "server/job.h"
#include "server/model_wait.h"
#include "server/session.h"
#include "server/unix_time.h"

namespace trellis {
namespace {

using Clock = std::chrono::steady_clock;

class Generation {
 public:
  // `out` may have begun, while the model was loaded.
  Generation(Job job, const HttpRequest& http_request, const Caller& caller, ModelLease model,
             Clock::time_point deadline, AnswerStream& out, Stream& stream, ServerState& state)
      : job_(std::move(job)),
        http_request_(http_request),
        caller_(caller),
        model_(std::move(model)),
        service_(*model_),
        out_(out),
        stream_(stream),
        state_(state),
        channel_(std::make_shared<Channel>(stream.get_executor())),
        watch_(stream, [channel = channel_] { channel->ClientIsGone(); }),
        deadline_(deadline) {}

  // However it ends, nothing goes on computing for a client that is gone.
  ~Generation() { CancelAll(); }

  // Once, and first. What it refuses is to be answered.
  std::optional<ApiError> Start() {
    if (state_.options.log_prompts) LogPrompts();
    const size_t num_answers = job_.prompts.size() * NumSamples();
    if (const size_t most = service_.engine->max_queue(); num_answers > most) {
      return InvalidField(
          NumSamples() > 1 ? "n" : prompt_field(),
          fmt::format("{} answers are more than the {} that may wait here (--max-queue)",
                      num_answers, most));
    }
    const Status submitted = SubmitAll();
    if (submitted.ok()) return std::nullopt;
    return ErrorFromStatus(submitted,
                           submitted.code() == StatusCode::kTooLarge ? prompt_field() : "");
  }

  net::awaitable<bool> Run() {
    if (job_.prompts.empty()) {
      Reply reply{.body = job_.writer->Whole({{.finish_reason = "load"}}, {}, {})};
      co_return co_await WriteReply(stream_, http_request_, std::move(reply), state_);
    }
    const bool open = job_.fields.stream ? co_await WriteStream() : co_await Collect();
    co_await Settle();
    LogAnswer();
    co_return open;
  }

 private:
  Status SubmitAll() {
    const size_t n = NumSamples();
    for (size_t i = 0; i < job_.prompts.size() * n; i++) {
      choices_.emplace_back(*service_.tokenizer, job_);
      choices_[i].text = job_.prompts[i / n].echo;
      GenerateRequest request = EngineRequest(job_, i / n, i % n, http_request_, caller_, service_);
      auto sink = std::make_shared<ChoiceSink>(channel_, i, service_.metrics,
                                               service_.requests.Add(LogOf(i, request)));
      Result<RequestId> id = service_.engine->Submit(std::move(request), std::move(sink));
      if (!id.ok()) return id.status();
      choices_[i].request = *id;
      left_++;
    }
    return Status::Ok();
  }

  // Of a kept chat not all: who knows its id may go on from it.
  std::string LogName() const {
    constexpr size_t kEnough = 13;
    return job_.kept_chat ? job_.head.id.substr(0, kEnough) : job_.head.id;
  }

  LoggedRequest LogOf(size_t choice, const GenerateRequest& request) const {
    LoggedRequest logged{.id = log_name_, .choice = choice};
    logged.owner = caller_.ScopeOf("");
    logged.scope = request.scope;
    logged.timings.prompt_tokens = request.prompt.size();
    return logged;
  }

  size_t NumSamples() const { return job_.num_samples(); }

  const char* prompt_field() const {
    if (job_.purpose == Job::Purpose::kEmbed) return "input";
    return job_.head.form == AnswerForm::kChat ? "messages" : "prompt";
  }

  void CancelAll() {
    for (Choice& choice : choices_) {
      if (choice.request && !choice.done) service_.engine->Cancel(*choice.request);
    }
  }

  // What an answer that ended early has cost is known when the engine has let go of it.
  net::awaitable<void> Settle() {
    CancelAll();
    while (left_ > 0) {
      co_await channel_->WaitForNobody();
      ChoiceText unsent;
      (void)Apply(channel_->TakeFirst(), &unsent);
    }
  }

  // Applies one event. At the end of a choice all that is left of it comes back in `piece`.
  Status Apply(const Event& event, ChoiceText* piece) {
    Choice& choice = choices_[event.choice];
    piece->index = event.choice;
    if (const auto* progress = std::get_if<PromptProgress>(&event.what)) {
      if (!choice.is_admitted && event.choice % NumSamples() == 0) {
        admitted_.prompt_tokens += progress->total;
        admitted_.cached_tokens += progress->cached;
      }
      choice.is_admitted = true;
    } else if (const auto* token = std::get_if<SampledToken>(&event.what)) {
      // Computed while the stop string was found; or nobody wants it.
      if (choice.finish_reason == nullptr && !job_.fields.only_prompt) AddToken(*token, choice);
    } else if (const auto* embedding = std::get_if<std::vector<float>>(&event.what)) {
      choice.embedding = *embedding;
    } else {
      const Ending& ending = *std::get<std::unique_ptr<Ending>>(event.what);
      choice.done = true;
      left_--;
      CountTimings(event.choice, ending.timings);
      TRELLIS_RETURN_IF_ERROR(EndChoice(ending, choice));
      Take(choice.reader.Finish(), choice, piece);
      usage_.reasoning_tokens +=
          service_.tokenizer
              ->Encode(choice.reader.thoughts(), AddSpecial::kNo, SpecialTokens::kAsText)
              .size();
      if (choice.reader.num_calls() > 0 && std::string_view(choice.finish_reason) != "length")
        choice.finish_reason = "tool_calls";
      piece->finish_reason = choice.finish_reason;
      piece->stop_hit = StopHit(choice);
      piece->usage = choice.usage;
      piece->timings = choice.timings;
    }
    return Status::Ok();
  }

  void AddToken(const SampledToken& token, Choice& choice) {
    completion_tokens_++;
    choice.num_tokens++;
    choice.logprob += static_cast<double>(token.logprob);
    if (HasLogprobs()) choice.logprobs.push_back(Logprobs(token, choice.offset));
    choice.offset += service_.tokenizer->Piece(token.token, SpecialTokens::kAsText).size();
    std::string text = choice.decoder.Push(token.token);
    const LineLimits::End end = choice.limits.Take(&text, Clock::now());
    if (end == LineLimits::End::kAfter) text += choice.decoder.Finish();
    choice.reader.Add(text);
    choice.is_unread = true;
    if (choice.decoder.stopped() || end != LineLimits::End::kNo) {
      const bool is_word = choice.decoder.stopped() && end != LineLimits::End::kWithin;
      choice.finish_reason = is_word ? "stop" : "length";
      service_.engine->Finish(*choice.request);
    }
  }

  // ERRORS: it did not end as answers do.
  Status EndChoice(const Ending& ending, Choice& choice) {
    choice.timings = TimingsOf(ending.timings);
    choice.usage = {.prompt_tokens = ending.timings.prompt_tokens,
                    .cached_tokens = ending.timings.cached_tokens,
                    .completion_tokens = choice.num_tokens};
    if (ending.reason == FinishReason::kError) {
      choice.finish_reason = "error";
      return ending.status;
    }
    if (choice.finish_reason != nullptr) return Status::Ok();
    if (ending.reason == FinishReason::kCancelled)
      return Status(StatusCode::kUnavailable, "the server is stopping");
    choice.reader.Add(choice.decoder.Finish());
    const bool is_cut = ending.reason == FinishReason::kLength || job_.fields.only_prompt;
    choice.finish_reason = is_cut ? "length" : "stop";
    return Status::Ok();
  }

  bool HasLogprobs() const { return job_.fields.sampling.num_logprobs >= 0; }

  // The client's own that has ended it; empty: none did.
  std::string StopHit(const Choice& choice) const {
    if (std::string_view(choice.finish_reason) == "length") return "";
    const std::string& hit = choice.decoder.stop_hit();
    const std::vector<std::string>& own = job_.fields.stop;
    return std::find(own.begin(), own.end(), hit) == own.end() ? "" : hit;
  }

  // What has been read of the choice becomes the text of `piece`.
  void Take(AnswerDelta delta, Choice& choice, ChoiceText* piece) const {
    choice.is_unread = false;
    piece->text = std::move(delta.content);
    piece->thoughts = std::move(delta.thoughts);
    piece->calls = std::move(delta.calls);
    piece->has_logprobs = HasLogprobs();
    if (job_.fields.stream) piece->logprobs = std::exchange(choice.logprobs, {});
  }

  Timings TimingsOf(const GenerateTimings& t) const {
    return {.cached_tokens = t.cached_tokens,
            .computed_tokens = t.computed_tokens,
            .predicted_tokens = job_.fields.only_prompt ? 0 : t.generated_tokens,
            .queued_ms = t.queued.count(),
            .prompt_ms = t.prompt.count(),
            .predicted_ms = t.predicted.count()};
  }

  void CountTimings(size_t choice, const GenerateTimings& t) {
    // Usage has a prompt once, however many answers it gets, as OpenAI counts. Its first answer is
    // the one that computes it for the others.
    if (choice % NumSamples() == 0) {
      usage_.prompt_tokens += t.prompt_tokens;
      usage_.cached_tokens += t.cached_tokens;
      if (t.pin.num_tokens > 0) pins_.push_back(t.pin);
    }
    timings_.Add(TimingsOf(t));
    usage_.completion_tokens = completion_tokens_;
    if (!job_.fields.breakpoints.empty()) {
      timings_.pinned_tokens = PinnedTokens();
    }
    missed_.Add(t.missed);
    if (!divergence_) divergence_ = t.divergence;
    if (left_ == 0 && job_.fields.cache_report) timings_.cache_report = Report();
  }

  std::vector<std::pair<std::string, size_t>> Missed() const {
    std::vector<std::pair<std::string, size_t>> missed;
    for (size_t i = 0; i < kNumMissCauses; i++) {
      const auto cause = static_cast<MissCause>(i);
      if (missed_[cause] > 0) missed.emplace_back(MissCauseName(cause), missed_[cause]);
    }
    return missed;
  }

  CacheReport Report() const {
    CacheReport report{.missed = Missed(), .divergence = std::nullopt};
    if (divergence_) {
      report.divergence = {.position = divergence_->position,
                           .prompt = AsText(divergence_->prompt),
                           .cached = std::nullopt};
      // Token by token one could read others' prompts.
      if (caller_.OwnsScope(job_.fields.cache_salt))
        report.divergence->cached = AsText(divergence_->cached);
    }
    return report;
  }

  std::string AsText(const std::vector<TokenId>& tokens) const {
    return service_.tokenizer->Pieces(tokens, SpecialTokens::kParse);
  }

  LogprobEntry Logprobs(const SampledToken& token, size_t offset) const {
    const auto piece = [&](TokenId id) {
      return service_.tokenizer->Piece(id, SpecialTokens::kParse);
    };
    LogprobEntry entry{
        .chosen = {piece(token.token), token.logprob}, .top = {}, .text_offset = offset};
    for (const TokenLogprob& t : token.top) entry.top.push_back({piece(t.token), t.logprob});
    return entry;
  }

  net::awaitable<bool> Collect() {
    while (left_ > 0) {
      const Channel::Wait wait = co_await channel_->WaitUntil(deadline_);
      if (wait == Channel::Wait::kGone) co_return false;
      ChoiceText piece;
      const Status status =
          wait == Channel::Wait::kTime ? TooLate() : Apply(channel_->TakeFirst(), &piece);
      if (!status.ok()) {
        co_return co_await WriteReply(stream_, http_request_, ErrorReply(ErrorFromStatus(status)),
                                      state_);
      }
      choices_[piece.index].Add(piece);
    }
    KeepChat();
    const std::vector<ChoiceText> texts = TakeTexts();
    Reply reply;
    const Work write = [&] { reply.body = Written(texts); };
    const bool is_embed = job_.purpose == Job::Purpose::kEmbed;
    if (HasLogprobs() || is_embed) {  // thousands of objects
      co_await RunOn(state_.text, write);
    } else {
      write();
    }
    LetGoOfModel();
    co_return co_await WriteReply(stream_, http_request_, std::move(reply), state_);
  }

  // The samples of each prompt that are given: all, or those whose tokens are likeliest, the best
  // first.
  std::vector<ChoiceText> TakeTexts() {
    std::vector<ChoiceText> texts;
    for (size_t first = 0; first < choices_.size(); first += NumSamples()) {
      std::vector<size_t> samples(NumSamples());
      std::iota(samples.begin(), samples.end(), first);
      const auto mean_logprob = [&](size_t i) {
        return choices_[i].logprob /
               static_cast<double>(std::max<size_t>(choices_[i].num_tokens, 1));
      };
      if (job_.ranks_samples()) {
        std::stable_sort(samples.begin(), samples.end(),
                         [&](size_t a, size_t b) { return mean_logprob(a) > mean_logprob(b); });
      }
      samples.resize(job_.fields.num_choices);
      for (const size_t i : samples) {
        ChoiceText& text = texts.emplace_back();
        text.index = texts.size() - 1;
        text.text = std::move(choices_[i].text);
        text.thoughts = std::move(choices_[i].thoughts);
        text.calls = std::move(choices_[i].calls);
        text.has_logprobs = HasLogprobs();
        text.logprobs = std::move(choices_[i].logprobs);
        text.stop_hit = StopHit(choices_[i]);
        text.finish_reason = choices_[i].finish_reason;
        text.usage = choices_[i].usage;
        text.timings = choices_[i].timings;
      }
    }
    return texts;
  }

  // With the answer, as a message that a client would send it back as.
  void KeepChat() {
    if (!job_.kept_chat) return;
    const Choice& choice = choices_.front();
    ChatMessage& answer = job_.kept_chat->emplace_back();
    answer.role = "assistant";
    answer.content = choice.text;
    answer.reasoning_content = choice.thoughts;
    answer.tool_calls_json = ToolCallsJson(choice.calls);
    state_.responses.Put(caller_.ScopeOf(""), job_.head.id, *std::move(job_.kept_chat));
  }

  std::string Written(const std::vector<ChoiceText>& texts) const {
    if (job_.purpose == Job::Purpose::kAnswer) return job_.writer->Whole(texts, usage_, timings_);
    if (job_.purpose != Job::Purpose::kEmbed) return WarmJson(Warmed());
    std::vector<std::vector<float>> embeddings;
    for (const Choice& choice : choices_) embeddings.push_back(choice.embedding);
    switch (job_.embeddings_form) {
      case EmbeddingsForm::kLlama:
        return LlamaEmbeddingsJson(embeddings);
      case EmbeddingsForm::kOllama:
        return OllamaEmbeddingsJson(job_.head, embeddings, usage_, timings_);
      case EmbeddingsForm::kOllamaOne:
        return OllamaEmbeddingJson(embeddings.front());
      case EmbeddingsForm::kFloats:
      case EmbeddingsForm::kBase64:
        break;
    }
    const bool base64 = job_.embeddings_form == EmbeddingsForm::kBase64;
    return EmbeddingsJson(job_.head, embeddings, usage_, base64);
  }

  WarmResult Warmed() const {
    WarmResult result{.is_pin = job_.purpose == Job::Purpose::kPin,
                      .usage = usage_,
                      .computed_tokens = timings_.computed_tokens,
                      .pinned_tokens = PinnedTokens()};
    for (const PinTable::Added& pin : pins_) {
      result.pins.push_back({.id = pin.id.value(),
                             .num_tokens = pin.num_tokens,
                             .expires_at = UnixSeconds(pin.expires)});
    }
    return result;
  }

  size_t PinnedTokens() const {
    size_t sum = 0;
    for (const PinTable::Added& pin : pins_) sum += pin.num_tokens;
    return sum;
  }

  net::awaitable<bool> WriteStream() {
    AnswerWriter& writer = *job_.writer;
    if (!co_await out_.Begin(writer.content_type())) co_return false;
    std::string out;
    bool failed = false;
    while (left_ > 0 && !failed) {
      const auto silent_until = Clock::now() + state_.options.keep_alive_interval;
      const Channel::Wait wait = co_await channel_->WaitUntil(std::min(silent_until, deadline_));
      if (wait == Channel::Wait::kGone) co_return false;
      const bool is_late = Clock::now() >= deadline_;
      if (wait == Channel::Wait::kTime && !is_late) {
        if (!co_await out_.Write(writer.KeepAlive())) co_return false;
        continue;
      }
      const Result<std::string> next = is_late ? TooLate() : TakeNext();
      failed = !next.ok();
      out += failed ? ReadAll() + out_.ErrorEvent(writer, ErrorFromStatus(next.status())) : *next;
      // What is ready goes out in one write; a slow client makes the pieces larger, not the queue
      // of writes.
      if (!channel_->empty() || left_ == 0 || failed) continue;
      out += ReadAll();
      if (!co_await out_.Write(std::exchange(out, ""))) co_return false;
    }
    if (!failed) {
      KeepChat();
      out += writer.End(usage_, timings_);
    }
    LetGoOfModel();
    if (!co_await out_.Write(std::move(out))) co_return false;
    co_return co_await out_.End();
  }

  // Who reads slowly keeps it from nobody, once all is computed and written down.
  void LetGoOfModel() {
    if (left_ == 0) model_ = ModelLease();
  }

  // What the next event adds to the stream. ERRORS: what ends it.
  Result<std::string> TakeNext() {
    const Event event = channel_->TakeFirst();
    ChoiceText piece;
    TRELLIS_RETURN_IF_ERROR(Apply(event, &piece));
    std::string out;
    if (!std::exchange(has_begun_, true)) out += Beginning();
    const auto* progress = std::get_if<PromptProgress>(&event.what);
    if (progress != nullptr && job_.fields.return_progress) {
      const std::chrono::duration<double, std::milli> passed = Clock::now() - begun_;
      out += job_.writer->Progress(event.choice, {.total = progress->total,
                                                  .cached = progress->cached,
                                                  .done = progress->done,
                                                  .ms = passed.count()});
    }
    return out + PieceText(piece);
  }

  // Of the tokens since the last write. Reading takes all text again, so that it is done once for
  // all that were waiting.
  std::string ReadAll() {
    std::string out;
    for (size_t i = 0; i < choices_.size(); i++) {
      if (!choices_[i].is_unread) continue;
      ChoiceText piece;
      piece.index = i;
      Take(choices_[i].reader.Read(), choices_[i], &piece);
      out += PieceText(piece);
    }
    return out;
  }

  std::string PieceText(const ChoiceText& piece) {
    if (job_.kept_chat) choices_[piece.index].Add(piece);
    const bool says = !piece.text.empty() || !piece.thoughts.empty() || !piece.calls.empty();
    if (!says && piece.finish_reason == nullptr && piece.logprobs.empty()) return "";
    return job_.writer->Piece(piece, left_ == 0 ? &timings_ : nullptr);
  }

  // What is known before the first token.
  std::string Beginning() {
    std::string out = job_.writer->Begin(choices_.size(), admitted_);
    for (size_t i = 0; i < choices_.size(); i++) {
      if (choices_[i].text.empty()) continue;
      out += job_.writer->Piece({.index = i, .text = choices_[i].text}, nullptr);  // the echo
    }
    return out;
  }

  // A line each, whatever is in them.
  void LogPrompts() const {
    for (const JobPrompt& prompt : job_.prompts)
      state_.log.Info("prompt", {{"id", log_name_}, {"text", AsText(prompt.tokens)}});
  }

  void LogAnswer() const {
    std::string finish;
    for (const Choice& choice : choices_) {
      finish += finish.empty() ? "" : ",";
      finish += choice.finish_reason != nullptr ? choice.finish_reason : "cancelled";
    }
    OrderedJson missed = OrderedJson::object();
    for (const auto& [cause, tokens] : Missed()) missed[cause] = tokens;
    state_.log.Info("answer", {{"id", log_name_},
                               {"request_id", RequestIdOf(http_request_)},
                               {"path", PathOf(http_request_)},
                               {"model", job_.head.model},
                               {"stream", job_.fields.stream},
                               {"finish_reason", finish},
                               {"prompt_tokens", usage_.prompt_tokens},
                               {"cached_tokens", usage_.cached_tokens},
                               {"computed_tokens", timings_.computed_tokens},
                               {"missed", std::move(missed)},
                               {"generated_tokens", usage_.completion_tokens},
                               {"queued_ms", std::round(timings_.queued_ms)},
                               {"prompt_ms", std::round(timings_.prompt_ms)},
                               {"predicted_ms", std::round(timings_.predicted_ms)}});
  }

  Job job_;
  const HttpRequest& http_request_;
  const Caller& caller_;
  ModelLease model_;  // until all is computed
  Service& service_;  // its
  AnswerStream& out_;
  Stream& stream_;
  ServerState& state_;
  std::shared_ptr<Channel> channel_;
  ClientWatch watch_;
  const std::string log_name_ = LogName();  // KeepChat takes the chat away
  const Clock::time_point begun_ = Clock::now();
  const Clock::time_point deadline_;
  bool has_begun_ = false;      // the stream
  std::deque<Choice> choices_;  // stable addresses
  size_t left_ = 0;
  size_t completion_tokens_ = 0;
  Usage admitted_;  // as far as prompts are
  Usage usage_;     // in the end
  Timings timings_;
  std::vector<PinTable::Added> pins_;  // of the prompts that have one
  MissCounts missed_;
  std::optional<Divergence> divergence_;  // the first of them
};

}  // namespace

net::awaitable<bool> AnswerGeneration(const HttpRequest& request, const Caller& caller,
                                      Stream& stream, ServerState& state) {
  AnswerStream out(request, stream, state);
  const std::unique_ptr<AnswerWriter> writer = WriterFor(PathOf(request));
  ApiResult<Clock::time_point> deadline = DeadlineOf(request);
  if (!deadline.ok()) co_return co_await out.Fail(writer.get(), deadline.error());
  std::optional<ApiResult<ModelLease>> model;
  std::optional<ApiResult<Job>> job;
  std::optional<bool> is_stream;
  const Work look_for_stream = [&] { is_stream = AsksForStream(request.body()); };
  // A stream begins while its model is loaded, so that it can say that it waits.
  const KeepAlive keep_alive = [&]() -> net::awaitable<bool> {
    std::string text = writer == nullptr ? "" : writer->KeepAlive();
    if (!text.empty() && !is_stream) co_await WorkOnBody(request, stream, state, look_for_stream);
    if (text.empty() || !is_stream.value_or(false)) co_return true;
    if (!co_await out.Begin(writer->content_type())) co_return false;
    co_return co_await out.Write(std::move(text));
  };
  const Work make_job = [&] {
    job = MakeJob(PathOf(request), request.body(), caller.ScopeOf(""), *model->value(),
                  state.responses);
  };
  try {
    model = co_await AcquireModel(request, caller, stream, state, deadline.value(), keep_alive);
    if (model->ok()) co_await WorkOnBody(request, stream, state, make_job);
  } catch (const std::exception& error) {
    job = InternalError(request, error, state);
  }
  if (model && !model->ok()) job = model->error();
  if (!job || (!job->ok() && job->error().http_status == kLeftStatus)) co_return false;
  if (job->ok() && out.has_begun() && !job->value().fields.stream)
    job = InvalidField("stream", "stream: say it once");
  if (!job->ok()) co_return co_await out.Fail(writer.get(), job->error());
  std::optional<Generation> generation;
  std::optional<ApiError> refused;
  try {
    generation.emplace(std::move(job->value()), request, caller, std::move(model->value()),
                       deadline.value(), out, stream, state);
    refused = generation->Start();
  } catch (const std::exception& error) {
    refused = InternalError(request, error, state);
  }
  if (refused) co_return co_await out.Fail(writer.get(), *refused);
  co_return co_await generation->Run();
}

}  // namespace trellis
