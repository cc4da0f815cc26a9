// Flags that several subcommands have, and what is said about wrong ones.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "loading.h"

namespace trellis {

// A number in [low, high], said in few words when it is not.
CLI::Validator Between(int64_t low, int64_t high);

CLI::Validator Number();

void AddModelFlag(CLI::App* app, ModelOptions* options);    // -m, --no-pack-cache
void AddThreadsFlag(CLI::App* app, ModelOptions* options);  // -t
void AddCacheFlags(CLI::App* app, ModelOptions* options);   // -c, --kv-cache
void AddKvTypeFlag(CLI::App* app, ModelOptions* options);   // --kv-type

// One line about `args` that CLI11 refused with `error`: a command or a flag that is unknown comes
// first, with the known one nearest to it.
std::string ExplainError(const CLI::App& app, const std::vector<std::string>& args,
                         const CLI::ParseError& error);

}  // namespace trellis
