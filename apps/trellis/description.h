// The commands and flags of CLI11 as data, for completions, the manual and the reference.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace trellis {

struct ArgumentDescription {
  // What a shell can offer for its value.
  enum class Offers { kNothing, kChoices, kFiles, kModels };

  std::vector<std::string> names;  // "-m", "--model"; empty: it has a place instead
  std::string value;               // "FILE"; empty: it takes none
  std::string help;
  std::string default_value;
  std::string setting;  // its key in a config file (settings.h); empty: it has none
  Offers offers = Offers::kNothing;
  std::vector<std::string> choices;
};

struct CommandDescription {
  std::string name;
  std::string help;
  std::vector<ArgumentDescription> arguments;
};

// In the order in which they were added; --help is among the flags.
std::vector<CommandDescription> DescribeCommands(const CLI::App& app);
// Flags that come before a command.
std::vector<ArgumentDescription> DescribeArguments(const CLI::App& app);

}  // namespace trellis
