// trellis: the command line. One file per subcommand.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "commands.h"

namespace {

// Edit distance (Levenshtein), for "did you mean".
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

// The known flag or subcommand nearest to what was written; empty when none is near.
std::string Nearest(const CLI::App& app, const std::string& written) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
    if (!sub->parsed()) continue;
    for (const CLI::Option* option : sub->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  const std::string flag = written.substr(0, written.find('='));
  std::string best;
  size_t least = std::max<size_t>(2, flag.size() / 2);
  for (const std::string& name : names) {
    const size_t distance = Distance(flag, name);
    if (distance < least) least = distance, best = name;
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Trellis runs GGUF language models and remembers every prefix it has computed.",
               "trellis");
  app.set_version_flag("--version", std::string("trellis ") + TRELLIS_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  trellis::AddServe(app, &exit_status);
  trellis::AddRun(app, &exit_status);
  trellis::AddBench(app, &exit_status);
  trellis::AddInspect(app, &exit_status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    fmt::print(stderr, "trellis: {}\n", error.what());
    for (int i = 1; i < argc; i++) {
      const std::string written = argv[i];
      if (std::string(error.what()).find(written) == std::string::npos) continue;
      const std::string nearest = Nearest(app, written);
      if (!nearest.empty() && nearest != written) fmt::print(stderr, "did you mean {}?\n", nearest);
      break;
    }
    fmt::print(stderr, "`trellis --help` and `trellis COMMAND --help` list the flags\n");
    return trellis::kExitUsage;
  }
  return exit_status;
}
