// trellis: the command line. One file per subcommand.
#include <fmt/format.h>

#include <string>
#include <vector>

#include "commands.h"
#include "console.h"
#include "flags.h"

int main(int argc, char** argv) {
  CLI::App app("Trellis runs GGUF language models and remembers every prefix it has computed.",
               "trellis");
  app.set_version_flag("--version", std::string("trellis ") + TRELLIS_VERSION);
  app.require_subcommand(1);
  int exit_status = 0;
  trellis::AddServe(app, &exit_status);
  trellis::AddRun(app, &exit_status);
  trellis::AddBench(app, &exit_status);
  trellis::AddExplain(app, &exit_status);
  trellis::AddReplay(app, &exit_status);
  trellis::AddInspect(app, &exit_status);
  try {
    app.parse(argc, argv);
    trellis::FlushOutput();
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    const std::vector<std::string> args(argv + 1, argv + argc);
    trellis::Say("trellis: {} (--help lists what there is)\n",
                 trellis::ExplainError(app, args, error));
    return trellis::kExitUsage;
  } catch (const std::exception& error) {
    trellis::Say("trellis: {}\n", error.what());
    return trellis::kExitFailure;
  }
  return exit_status;
}
