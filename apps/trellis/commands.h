// The subcommands of `trellis`: each adds its flags; when it is the one chosen, it runs and sets
// the exit status.
#pragma once

#include <CLI/CLI.hpp>

#include "base/status.h"

namespace trellis {

void AddServe(CLI::App& app, int* exit_status);
void AddChat(CLI::App& app, int* exit_status);
void AddRun(CLI::App& app, int* exit_status);
void AddPull(CLI::App& app, int* exit_status);
void AddList(CLI::App& app, int* exit_status);
void AddRemove(CLI::App& app, int* exit_status);
void AddPs(CLI::App& app, int* exit_status);
void AddBench(CLI::App& app, int* exit_status);
void AddExplain(CLI::App& app, int* exit_status);
void AddReplay(CLI::App& app, int* exit_status);
void AddInspect(CLI::App& app, int* exit_status);
void AddCompletions(CLI::App& app);
void AddMan(CLI::App& app);

inline constexpr int kExitFailure = 1;        // anything else: a port in use, a full disk
inline constexpr int kExitUsage = 2;          // a wrong flag or a bad model file
inline constexpr int kExitInterrupted = 130;  // as shells have it

// Says what went wrong, if something did.
int ExitStatusOf(const Status& status);

}  // namespace trellis
