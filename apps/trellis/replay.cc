// trellis replay: a trace of prompts through ways to cache, without a model.
#include "replay/replay.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>

#include "api/json_text.h"
#include "chart.h"
#include "commands.h"
#include "console.h"
#include "flags.h"
#include "loading.h"
#include "replay/strategy.h"

namespace trellis {
namespace {

struct Flags {
  std::string path;
  TraceOptions trace;
  std::vector<std::string> budgets = {"25%", "50%", "100%"};
  std::vector<std::string> strategies;
  size_t token_bytes = 28672;
  std::string output = "md";
  std::string svg;
};

struct Budget {
  size_t tokens = 0;
  std::string label;
  std::vector<ReplayResult> results = {};  // one for each strategy, in their order
};

// "25%" of the working set, or bytes.
Result<Budget> ReadBudget(const std::string& text, size_t token_bytes, size_t working_set) {
  Budget budget{.label = text};
  if (text.ends_with('%')) {
    double percent = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size() - 1, percent);
    if (error == std::errc() && end + 1 == text.data() + text.size() && percent > 0 &&
        percent <= 1e6)
      budget.tokens = std::max(
          size_t{1}, static_cast<size_t>(percent / 100 * static_cast<double>(working_set)));
  } else {
    TRELLIS_ASSIGN_OR_RETURN(const size_t bytes, ParseBytes(text));
    budget.tokens = bytes / token_bytes;
  }
  if (budget.tokens == 0) {
    return Status(
        StatusCode::kInvalidArgument,
        fmt::format("--budgets: {} is no share of the working set (25%) and no size (4GiB) "
                    "that holds a token",
                    text));
  }
  return budget;
}

struct Replayed {
  Trace trace;
  size_t unique_tokens = 0;
  std::vector<Budget> budgets;
};

std::string Percent(double share) {
  return fmt::format("{:.2f} %", 100 * share);
}

double ShareOfOptimum(const std::vector<ReplayResult>& results, const ReplayResult& result) {
  for (const ReplayResult& best : results) {
    if (best.strategy == "optimum" && best.hit_tokens > 0)
      return static_cast<double>(result.hit_tokens) / static_cast<double>(best.hit_tokens);
  }
  return 0;
}

void PrintMarkdown(const Replayed& replayed, size_t token_bytes) {
  const Trace& trace = replayed.trace;
  fmt::print("{}: {} requests, {} prompt tokens, {} of them different ({} at {} bytes a token)\n",
             trace.name, trace.requests.size(), trace.TotalTokens(), replayed.unique_tokens,
             FormatBytes(replayed.unique_tokens * token_bytes), token_bytes);
  for (const Budget& budget : replayed.budgets) {
    fmt::print("\nBudget {}: {} tokens, {}\n\n", budget.label, budget.tokens,
               FormatBytes(budget.tokens * token_bytes));
    fmt::print(
        "| strategy | hits | of the optimum | computed tokens | peak | tree and tables | upkeep a "
        "request |\n| --- | --: | --: | --: | --: | --: | --: |\n");
    for (const ReplayResult& r : budget.results) {
      const double share = ShareOfOptimum(budget.results, r);
      fmt::print("| {} | {} | {} | {} | {} | {} | {:.1f} us |\n", r.strategy, Percent(r.hit_rate()),
                 share > 0 ? Percent(share) : "", r.recomputed_tokens(),
                 FormatBytes(r.peak_tokens * token_bytes), FormatBytes(r.peak_overhead_bytes),
                 r.upkeep_us);
    }
  }
}

void PrintJson(const Replayed& replayed, size_t token_bytes) {
  OrderedJson results = OrderedJson::array();
  for (const Budget& budget : replayed.budgets) {
    for (const ReplayResult& r : budget.results) {
      results.push_back({{"budget", budget.label},
                         {"budget_tokens", r.budget_tokens},
                         {"budget_bytes", r.budget_tokens * token_bytes},
                         {"strategy", r.strategy},
                         {"hit_tokens", r.hit_tokens},
                         {"computed_tokens", r.recomputed_tokens()},
                         {"hit_rate", r.hit_rate()},
                         {"peak_bytes", r.peak_tokens * token_bytes},
                         {"overhead_bytes", r.peak_overhead_bytes},
                         {"upkeep_us", r.upkeep_us}});
    }
  }
  const OrderedJson json = {{"trace", replayed.trace.name},
                            {"requests", replayed.trace.requests.size()},
                            {"prompt_tokens", replayed.trace.TotalTokens()},
                            {"unique_tokens", replayed.unique_tokens},
                            {"token_bytes", token_bytes},
                            {"results", std::move(results)}};
  fmt::print("{}\n", ToText(json));
}

Status WriteSvg(const std::string& path, const Replayed& replayed, size_t token_bytes) {
  std::vector<std::pair<double, std::string>> ticks;
  std::vector<ChartLine> lines(replayed.budgets[0].results.size());
  for (const Budget& budget : replayed.budgets) {
    const auto x = static_cast<double>(budget.tokens);
    ticks.emplace_back(x, budget.label);
    for (size_t i = 0; i < lines.size(); i++) {
      lines[i].name = budget.results[i].strategy;
      lines[i].points.emplace_back(x, budget.results[i].hit_rate());
    }
  }
  const std::string title =
      fmt::format("{}: prompt tokens found in the cache", replayed.trace.name);
  const std::string x_title = fmt::format("budget (of a working set of {})",
                                          FormatBytes(replayed.unique_tokens * token_bytes));
  std::ofstream file(path);
  file << DrawChart(title, x_title, ticks, lines);
  file.close();
  if (!file) return Status(StatusCode::kIo, fmt::format("{}: cannot be written", path));
  return Status::Ok();
}

Status Run(const Flags& flags) {
  Replayed replayed;
  TRELLIS_ASSIGN_OR_RETURN(replayed.trace, ReadTrace(flags.path, flags.trace));
  replayed.unique_tokens = replayed.trace.UniqueTokens();
  for (const std::string& text : flags.budgets) {
    TRELLIS_ASSIGN_OR_RETURN(Budget budget,
                             ReadBudget(text, flags.token_bytes, replayed.unique_tokens));
    replayed.budgets.push_back(std::move(budget));
  }
  const auto& strategies = flags.strategies.empty() ? StrategyNames() : flags.strategies;
  for (const std::string& strategy : strategies) {  // before anything takes time
    if (strategy != "optimum")
      TRELLIS_RETURN_IF_ERROR(MakeStrategy(strategy, replayed.trace, 0).status());
  }
  if (!flags.svg.empty() && !std::ofstream(flags.svg))
    return Status(StatusCode::kIo, fmt::format("{}: cannot be written", flags.svg));
  for (Budget& budget : replayed.budgets) {
    for (const std::string& strategy : strategies) {
      Say("{} with {}\n", strategy, budget.label);
      TRELLIS_ASSIGN_OR_RETURN(ReplayResult result,
                               Replay(replayed.trace, strategy, budget.tokens));
      budget.results.push_back(std::move(result));
    }
  }
  (flags.output == "json" ? PrintJson : PrintMarkdown)(replayed, flags.token_bytes);
  return flags.svg.empty() ? Status::Ok() : WriteSvg(flags.svg, replayed, flags.token_bytes);
}

}  // namespace

void AddReplay(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* replay =
      app.add_subcommand("replay", "Run a trace of prompts through ways to cache, without a model");
  replay
      ->add_option("trace", flags->path,
                   "A folder of agent sessions (*.json), or a file with a request a line "
                   "(docs/caching-strategies.md has the formats)")
      ->required()
      ->type_name("PATH");
  replay
      ->add_option("-b,--budgets", flags->budgets,
                   "Memory for keys and values: shares of the trace's different tokens (25%), or "
                   "sizes (4GiB)")
      ->delimiter(',')
      ->capture_default_str()
      ->type_name("BUDGET,...");
  replay
      ->add_option("-s,--strategies", flags->strategies,
                   fmt::format("Of {}; other numbers work too (default: all)",
                               fmt::join(StrategyNames(), ", ")))
      ->delimiter(',')
      ->type_name("NAME,...");
  replay
      ->add_option("--token-bytes", flags->token_bytes,
                   "What a token takes; as it is, that of Qwen2.5-Coder-1.5B in 16 bits")
      ->check(Between(1, 1 << 30))
      ->capture_default_str()
      ->type_name("N");
  replay
      ->add_option("--concurrency", flags->trace.concurrency,
                   "Of a folder: sessions that run at once")
      ->check(Between(1, 100000))
      ->capture_default_str()
      ->type_name("N");
  replay->add_flag(
      "!--own-harness", flags->trace.same_harness,
      "Of a folder: sessions have their tools and system prompts each for itself; else "
      "they are one text");
  AddChoice(replay, "-o,--output", &flags->output, "What to print", {"md", "json"});
  replay->add_option("--svg", flags->svg, "Also draw hits over budgets")->type_name("FILE");
  replay->callback([flags, exit_status] { *exit_status = ExitStatusOf(Run(*flags)); });
}

}  // namespace trellis
