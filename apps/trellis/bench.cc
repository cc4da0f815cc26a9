// trellis bench: prefill (ppN) and decode (tgN) speed at depths, in the rows of llama-bench.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <random>

#include "api/json_text.h"
#include "commands.h"
#include "console.h"
#include "flags.h"
#include "loading.h"
#include "models.h"
#include "os/buffer.h"
#include "os/machine.h"
#include "profile.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  std::vector<size_t> prompts = {512}, generates = {64}, depths = {0};
  size_t repetitions = 3;
  std::string output = "md";
  bool profile = false;
};

struct Row {
  size_t prompt = 0, generate = 0, depth = 0;  // one of the first two is 0
  std::vector<double> speeds = {};             // tokens per second, of each repetition
  double mean = 0, deviation = 0;
  std::optional<TestProfile> profile = {};

  std::string test() const {
    return prompt > 0 ? fmt::format("pp{}", prompt) : fmt::format("tg{}", generate);
  }
  std::string test_at_depth() const {
    return test() + (depth > 0 ? fmt::format(" @ d{}", depth) : "");
  }
};

// One sequence in pages of its own.
class Bench {
 public:
  // `buffer` holds the pages of `max_tokens`.
  Bench(Model& model, Buffer buffer, size_t max_tokens)
      : model_(model), buffer_(std::move(buffer)) {
    for (size_t i = 0; i < PagesFor(max_tokens); i++)
      pages_.push_back(buffer_.data() + i * model.page_layout().page_bytes());
    std::mt19937 random(1);
    std::uniform_int_distribution<TokenId> token(0,
                                                 static_cast<TokenId>(model.spec().vocab_size) - 1);
    for (size_t i = 0; i < max_tokens; i++) tokens_.push_back(token(random));
    logits_.resize(model.spec().vocab_size);
  }

  // Runs tokens [begin, end) in one pass; logits of the last.
  void Prefill(size_t begin, size_t end) {
    if (begin == end) return;
    const size_t last = end - begin - 1;
    const SequenceRows rows{.pages = pages_,
                            .tokens = std::span(tokens_).subspan(begin, end - begin),
                            .first_position = begin,
                            .first_unwritten = 0,
                            .logit_rows = std::span(&last, 1)};
    model_.Forward({&rows, 1}, logits_.data());
  }

  // `row` says what; `work` does it once.
  template <typename Work>
  static Row Measure(Row row, size_t repetitions, const Work& work) {
    const auto tokens = static_cast<double>(row.prompt + row.generate);
    work();  // warm-up
    for (size_t i = 0; i < repetitions; i++) {
      const auto start = std::chrono::steady_clock::now();
      work();
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      row.speeds.push_back(tokens / took.count());
    }
    const auto n = static_cast<double>(repetitions);
    for (double s : row.speeds) row.mean += s / n;
    for (double s : row.speeds) row.deviation += (s - row.mean) * (s - row.mean);
    row.deviation = repetitions > 1 ? std::sqrt(row.deviation / (n - 1)) : 0;
    return row;
  }

 private:
  Model& model_;
  Buffer buffer_;
  std::vector<std::byte*> pages_;
  std::vector<TokenId> tokens_;
  std::vector<float> logits_;
};

// What all rows have in common.
struct Setup {
  const ModelSpec& spec;
  const char* isa;
  const char* kv_type;
  size_t threads;
};

void PrintMarkdown(const Setup& setup, const std::vector<Row>& rows, const Ceilings& ceilings) {
  const ModelSpec& spec = setup.spec;
  fmt::print(
      "| model | size | params | isa | threads | kv | test | t/s |\n| --- | --: | --: | --- | --: "
      "| --- | --: | --: |\n");
  for (const Row& row : rows) {
    fmt::print("| {} {} | {} | {:.2f} M | {} | {} | {} | {} | {:.2f} ± {:.2f} |\n",
               spec.architecture, spec.file_type, FormatBytes(spec.file_bytes),
               static_cast<double>(spec.num_parameters) / 1e6, setup.isa, setup.threads,
               setup.kv_type, row.test_at_depth(), row.mean, row.deviation);
  }
  if (!rows.empty() && rows[0].profile) PrintCeilings(ceilings, setup.threads);
  for (const Row& row : rows) {
    if (row.profile) PrintProfile(row.test_at_depth(), *row.profile, ceilings);
  }
}

// With llama-bench's names where it has one.
void PrintJson(const Setup& setup, const std::vector<Row>& rows, const Ceilings& ceilings) {
  const ModelSpec& spec = setup.spec;
  const char* before = "[\n  ";
  for (const Row& row : rows) {
    OrderedJson json = {{"model_type", spec.architecture + " " + spec.file_type},
                        {"model_size", spec.file_bytes},
                        {"model_n_params", spec.num_parameters},
                        {"isa", setup.isa},
                        {"n_threads", setup.threads},
                        {"type_k", setup.kv_type},
                        {"type_v", setup.kv_type},
                        {"test", row.test()},
                        {"n_prompt", row.prompt},
                        {"n_gen", row.generate},
                        {"n_depth", row.depth},
                        {"avg_ts", row.mean},
                        {"stddev_ts", row.deviation},
                        {"samples_ts", row.speeds}};
    if (row.profile) json["profile"] = ProfileJson(*row.profile, ceilings);
    fmt::print("{}{}", before, ToText(json));
    before = ",\n  ";
  }
  fmt::print("{}]\n", rows.empty() ? "[" : "\n");
}

std::vector<Row> MeasureAll(const Flags& flags, Bench& bench) {
  std::vector<Row> rows;
  for (size_t depth : flags.depths) {
    bench.Prefill(0, depth);
    for (size_t n : flags.prompts) {
      if (n == 0) continue;
      rows.push_back(Bench::Measure({.prompt = n, .depth = depth}, flags.repetitions,
                                    [&] { bench.Prefill(depth, depth + n); }));
    }
    for (size_t n : flags.generates) {
      if (n == 0) continue;
      rows.push_back(Bench::Measure({.generate = n, .depth = depth}, flags.repetitions, [&] {
        for (size_t i = 0; i < n; i++) bench.Prefill(depth + i, depth + i + 1);
      }));
    }
  }
  return rows;
}

Status Run(Flags flags) {
  const auto any = [](const std::vector<size_t>& counts) {
    return std::any_of(counts.begin(), counts.end(), [](size_t n) { return n > 0; });
  };
  if (!any(flags.prompts) && !any(flags.generates)) {
    return Status(StatusCode::kInvalidArgument,
                  "nothing to measure: give -p or -n a number above 0");
  }
  TRELLIS_RETURN_IF_ERROR(ResolveModel(&flags.model, [] { return false; }));
  TRELLIS_ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernelsFromEnvironment());
  const size_t threads = flags.model.threads == 0 ? AvailablePhysicalCores() : flags.model.threads;
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<ComputePool> pool, ComputePool::Create(threads));
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Model> model,
                           LoadModel(flags.model, *kernels, *pool, {}));
  size_t longest = 1;
  for (size_t p : flags.prompts) longest = std::max(longest, p);
  for (size_t n : flags.generates) longest = std::max(longest, n);
  size_t deepest = 0;
  for (size_t d : flags.depths) deepest = std::max(deepest, d);
  if (longest + deepest > model->spec().context_length) {
    return Status(StatusCode::kTooLarge,
                  fmt::format("{} tokens at depth {} exceed the model's context of {}", longest,
                              deepest, model->spec().context_length));
  }
  const size_t max_tokens = longest + deepest;
  std::vector<Row> rows;
  {
    TRELLIS_ASSIGN_OR_RETURN(
        Buffer pages, Buffer::Allocate(PagesFor(max_tokens) * model->page_layout().page_bytes()));
    Bench bench(*model, std::move(pages), max_tokens);
    rows = MeasureAll(flags, bench);
  }
  Ceilings ceilings;
  if (flags.profile) {
    TRELLIS_RETURN_IF_ERROR(MeasureCeilings(*kernels, *pool, &ceilings));
    TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Profiler> profiler,
                             Profiler::Create(*model, *pool, max_tokens));
    for (Row& row : rows) {
      row.profile = row.prompt > 0 ? profiler->Prefill(row.depth, row.prompt, flags.repetitions)
                                   : profiler->Decode(row.depth, row.generate, flags.repetitions);
    }
    TRELLIS_RETURN_IF_ERROR(MeasureCeilings(*kernels, *pool, &ceilings));
  }
  const Setup setup{.spec = model->spec(),
                    .isa = kernels->name,
                    .kv_type = KvTypeName(model->page_layout().type),
                    .threads = threads};
  (flags.output == "json" ? PrintJson : PrintMarkdown)(setup, rows, ceilings);
  return Status::Ok();
}

}  // namespace

void AddBench(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* bench = app.add_subcommand("bench", "Measure prefill and decode speed");
  AddModelFlags(bench, &flags->model);
  const auto list = [bench](const char* name, std::vector<size_t>& values, const char* help) {
    bench->add_option(name, values, help)
        ->delimiter(',')
        ->check(Between(0, 1 << 30))
        ->capture_default_str()
        ->type_name("N,...");
  };
  list("-p,--n-prompt", flags->prompts, "Prompt lengths; 0 is none");
  list("-n,--n-gen", flags->generates, "Tokens to decode; 0 is none");
  list("-d,--n-depth", flags->depths, "Tokens already in the context");
  AddThreadsFlag(bench, &flags->model);
  AddKvTypeFlag(bench, &flags->model);
  bench->add_option("-r,--repetitions", flags->repetitions, "Each after one to warm up")
      ->check(Between(1, 1000))
      ->capture_default_str()
      ->type_name("N");
  AddChoice(bench, "-o,--output", &flags->output, "What to print", {"md", "json"});
  bench->add_flag("--profile", flags->profile,
                  "Also say where each test's time goes, part by part, and the share of what the "
                  "machine can do");
  bench->callback([flags, exit_status] { *exit_status = ExitStatusOf(Run(*flags)); });
}

}  // namespace trellis
