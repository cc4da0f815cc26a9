// trellis: the command line. One file per subcommand.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "base/printable.h"
#include "commands.h"
#include "console.h"
#include "flags.h"
#include "settings.h"

namespace {

// -hf, as llama.cpp's users write it: CLI11 has one letter behind one dash.
std::vector<std::string> Arguments(int argc, char** argv) {
  std::vector<std::string> args(argv + 1, argv + argc);
  for (std::string& arg : args) {
    if (arg == "--") break;
    if (arg == "-hf" || arg.starts_with("-hf=")) arg.insert(0, "-");
  }
  return args;
}

void AddCommands(CLI::App& app, int* exit_status) {
  trellis::AddServe(app, exit_status);
  trellis::AddChat(app, exit_status);
  trellis::AddRun(app, exit_status);
  trellis::AddPull(app, exit_status);
  trellis::AddList(app, exit_status);
  trellis::AddRemove(app, exit_status);
  trellis::AddPs(app, exit_status);
  trellis::AddBench(app, exit_status);
  trellis::AddExplain(app, exit_status);
  trellis::AddReplay(app, exit_status);
  trellis::AddInspect(app, exit_status);
  trellis::AddCompletions(app);
  trellis::AddMan(app);
}

}  // namespace

int trellis::ExitStatusOf(const Status& status) {
  if (status.ok()) return 0;
  Say("trellis: {}\n", Printable(status.message()));  // may quote a file
  switch (status.code()) {
    case StatusCode::kInvalidArgument:
    case StatusCode::kNotFound:
    case StatusCode::kTooLarge:
    case StatusCode::kDataLoss:
    case StatusCode::kUnsupported:
      return kExitUsage;
    case StatusCode::kCancelled:
      return kExitInterrupted;
    default:
      return kExitFailure;
  }
}

int main(int argc, char** argv) {
  CLI::App app("Trellis runs GGUF language models and remembers every prefix it has computed.",
               "trellis");
  app.set_version_flag("--version", std::string("trellis ") + TRELLIS_VERSION);
  app.require_subcommand(1);
  app.fallthrough();  // --config may come before the command and behind it
  const std::vector<std::string> args = Arguments(argc, argv);
  int exit_status = 0;
  try {
    trellis::AddConfigFlag(app);
    AddCommands(app, &exit_status);
    trellis::ApplySettings(app, args);
    app.parse(std::vector<std::string>(args.rbegin(), args.rend()));  // taken from the end
    trellis::FlushOutput();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    trellis::Say("trellis: {} (--help lists what there is)\n",
                 trellis::ExplainError(app, args, error));
    return trellis::kExitUsage;
  } catch (const std::exception& error) {
    trellis::Say("trellis: {}\n", error.what());
    return trellis::kExitFailure;
  }
  return exit_status;
}
