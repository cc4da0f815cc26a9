// What a config file and the environment say of the flags.
//
// The file is TOML: --config FILE, else $TRELLIS_CONFIG, else trellis/config.toml in
// $XDG_CONFIG_HOME or ~/.config, if that is there. A key is a long flag without its dashes; one at
// the top is for every command that has the flag, one in a table for the command of that name:
//
//   threads = 8
//   [serve]
//   port = 9000
//
// The environment has the same as TRELLIS_NAME: --kv-cache is TRELLIS_KV_CACHE; for all commands.
// A flag on the command line goes before the environment, that before the file, that before the
// default; in the file a command's own table goes before the top.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace trellis {

void AddConfigFlag(CLI::App& app);

// Makes what the file and the environment say the defaults of the command that `args` chooses; the
// whole file is checked. Nothing, if there is no such command, or it has no flags.
// THROWS CLI::ConfigError with the file and line, or the variable, and what is wrong.
void ApplySettings(CLI::App& app, const std::vector<std::string>& args);

// TRELLIS_KV_CACHE for "kv-cache". Empty for models-dir: TRELLIS_MODELS_DIR is where pulled models
// lie, for all commands, and no reason to serve them beside the model that somebody names.
std::string EnvironmentNameOf(const std::string& flag);

}  // namespace trellis
