// Flags that several subcommands have, and what is said about wrong ones.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "generation.h"
#include "loading.h"

namespace trellis {

// A number in [low, high], said in few words when it is not.
CLI::Validator Between(int64_t low, int64_t high);

CLI::Validator Number();

// As ParseBytes reads it.
CLI::Validator Size();

// One of `choices`; its help shows them, as do completions and the manual.
CLI::Option* AddChoice(CLI::App* app, const std::string& names, std::string* value,
                       const std::string& help, const std::vector<std::string>& choices);

// -m, -hf, --hub, --no-pack-cache. After parsing at most one of -m and -hf is set; ResolveModel
// (models.h) makes a file of it. Returns -m.
CLI::Option* AddModelFlags(CLI::App* app, ModelOptions* options);
void AddHubFlag(CLI::App* app, std::string* hub);                    // --hub
void AddThreadsFlag(CLI::App* app, ModelOptions* options);           // -t
void AddCacheFlags(CLI::App* app, ModelOptions* options);            // -c, --kv-cache
void AddKvTypeFlag(CLI::App* app, ModelOptions* options);            // --kv-type
void AddGenerationFlags(CLI::App* app, GenerationOptions* options);  // -n, --temp, ..., --seed

// "; did you mean X?" with the one of `known` that is nearest to `written`, or nothing.
std::string DidYouMean(const std::string& written, const std::vector<std::string>& known);

// One line about `args` that CLI11 refused with `error`: a command or a flag that is unknown comes
// first, with the known one nearest to it.
std::string ExplainError(const CLI::App& app, const std::vector<std::string>& args,
                         const CLI::ParseError& error);

}  // namespace trellis
