#include "flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>

#include "hub/hub.h"

namespace trellis {
namespace {

// Edit distance (Levenshtein).
size_t Distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string FlagOf(const std::string& arg) {
  if (!arg.starts_with("--")) return arg.substr(0, 2);  // -n8 is -n 8
  return arg.substr(0, arg.find('='));
}

bool LooksLikeAFlag(const std::string& arg) {
  return arg.size() > 1 && arg[0] == '-' && arg != "--" && arg[1] != '.' &&
         std::isdigit(static_cast<unsigned char>(arg[1])) == 0;
}

}  // namespace

std::string DidYouMean(const std::string& written, const std::vector<std::string>& known) {
  std::string best;
  size_t least = std::max<size_t>(3, written.size() / 2);
  for (const std::string& name : known) {
    // The start of a long name counts as near: --temp.
    const size_t distance =
        name.starts_with(written) && written.size() > 3 ? 1 : Distance(written, name);
    if (distance < least) least = distance, best = name;
  }
  return best.empty() ? "" : fmt::format("; did you mean {}?", best);
}

CLI::Validator Between(int64_t low, int64_t high) {
  const auto check = [low, high](const std::string& text) -> std::string {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const bool whole = error == std::errc() && end == text.data() + text.size();
    if (whole && value >= low && value <= high) return {};
    return fmt::format("{} is not a number from {} to {}", text, low, high);
  };
  return CLI::Validator(check, "");
}

CLI::Validator Number() {
  const auto check = [](const std::string& text) -> std::string {
    double value = 0;
    return CLI::detail::lexical_cast(text, value) ? "" : text + " is not a number";
  };
  return CLI::Validator(check, "");
}

CLI::Validator Size() {
  const auto check = [](const std::string& text) {
    const Result<size_t> bytes = ParseBytes(text);
    return bytes.ok() ? std::string() : bytes.status().message();
  };
  return CLI::Validator(check, "");
}

CLI::Option* AddChoice(CLI::App* app, const std::string& names, std::string* value,
                       const std::string& help, const std::vector<std::string>& choices) {
  return app->add_option(names, *value, help)
      ->check(CLI::IsMember(choices).description(""))
      ->capture_default_str()
      ->type_name(fmt::format("{}", fmt::join(choices, "|")));
}

CLI::Option* AddModelFlags(CLI::App* app, ModelOptions* options) {
  CLI::Option* model =
      app->add_option("-m,--model", options->path, "GGUF file, or the name of a pulled model")
          ->type_name("MODEL");
  CLI::Option* hf_repo = app->add_option("--hf,--hf-repo", options->hf_repo,
                                         "Or -hf: a model of a hub; pulled if it is not there yet")
                             ->type_name("USER/REPO[:QUANT]")
                             ->excludes(model);
  AddHubFlag(app, &options->hub);
  app->add_flag("!--no-pack-cache", options->pack_cache,
                "Neither use nor write packed weights in ~/.cache/trellis/packed");
  // A flag overrides what the environment or a config file says of the other one.
  app->parse_complete_callback([model, hf_repo, options] {
    if (model->count() > 0) options->hf_repo.clear();
    if (hf_repo->count() > 0) options->path.clear();
  });
  return model;
}

void AddHubFlag(CLI::App* app, std::string* hub) {
  app->add_option("--hub", *hub,
                  fmt::format("Where models are pulled from (default: $HF_ENDPOINT, "
                              "else {})",
                              kDefaultHub))
      ->type_name("URL");
}

void AddThreadsFlag(CLI::App* app, ModelOptions* options) {
  app->add_option("-t,--threads", options->threads, "Compute threads (default: physical cores)")
      ->check(Between(1, 1024))
      ->type_name("N");
}

void AddCacheFlags(CLI::App* app, ModelOptions* options) {
  app->add_option("-c,--ctx-size", options->context_size,
                  "Longest context in tokens (default, and 0: the model's)")
      ->check(Between(0, 1 << 30))
      ->type_name("N");
  app->add_option(
         "--kv-cache", options->kv_cache,
         "Memory for keys and values, like 2GiB (default: half of what is free, at most 16 "
         "contexts)")
      ->check(Size())
      ->type_name("SIZE");
}

void AddKvTypeFlag(CLI::App* app, ModelOptions* options) {
  std::vector<std::string> names = {"auto"};
  for (const KvType type : kKvTypes) names.emplace_back(KvTypeName(type));
  AddChoice(app, "--kv-type", &options->kv_type,
            "What keys and values are kept as: f16, bf16 (more range, fewer digits), i16 (integers "
            "and a scale for each row: faster on x86), q8_0 (8 bits: half the memory), or auto: "
            "i16 with AVX2 or AVX-512, else f16",
            names);
}

void AddGenerationFlags(CLI::App* app, GenerationOptions* options) {
  app->add_option("-n,--max-tokens", options->max_tokens,
                  "Tokens at most (default: to the end of the context)")
      ->check(Between(1, 1 << 30))
      ->type_name("N");
  const auto number = [app](const char* name, auto& value, const char* help) {
    app->add_option(name, value, help)->check(Number())->capture_default_str()->type_name("X");
  };
  SamplingParams& sampling = options->sampling;
  number("--temp,--temperature", sampling.temperature, "0 is greedy");
  number("--top-k", sampling.top_k, "Only the k most likely; 0 is off");
  number("--top-p", sampling.top_p, "Only the most likely, up to this probability");
  number("--min-p", sampling.min_p, "Only those with this share of the best one's probability");
  number("--typical-p", sampling.typical_p, "Only the most typical, up to this probability");
  number("--repeat-penalty", sampling.repetition_penalty, "Divides what was said before");
  number("--presence-penalty", sampling.presence_penalty, "Subtracted from what was said before");
  number("--frequency-penalty", sampling.frequency_penalty, "The same, for each time");
  number("--repeat-last-n", sampling.penalty_last_n, "How far penalties look back; -1: all");
  app->add_option("--seed", options->seed, "Same seed, same text (default: -1, drawn)")
      ->check(Between(std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()))
      ->type_name("N");
}

std::string ExplainError(const CLI::App& app, const std::vector<std::string>& args,
                         const CLI::ParseError& error) {
  const CLI::App* command = nullptr;
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
    if (!args.empty() && sub->get_name() == args[0]) command = sub;
  }
  if (args.empty()) return fmt::format("a command is missing: {}", fmt::join(names, ", "));
  if (command == nullptr && !LooksLikeAFlag(args[0])) {
    return fmt::format("there is no command '{}'{}", args[0], DidYouMean(args[0], names));
  }
  const CLI::App& chosen = command == nullptr ? app : *command;
  for (size_t i = command == nullptr ? 0 : 1; i < args.size() && args[i] != "--"; i++) {
    const std::string flag = FlagOf(args[i]);
    if (!LooksLikeAFlag(args[i]) || chosen.get_option_no_throw(flag) != nullptr ||
        app.get_option_no_throw(flag) != nullptr)
      continue;
    names.clear();
    for (const CLI::Option* option : chosen.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
    return fmt::format("{} has no flag {}{}", chosen.get_name(), flag, DidYouMean(flag, names));
  }
  return error.what();
}

}  // namespace trellis
