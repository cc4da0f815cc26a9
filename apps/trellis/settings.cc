#include "settings.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>

#include "flags.h"

namespace trellis {
namespace {

std::string Environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

// Those with a long name; --help is none of them.
std::vector<CLI::Option*> Flags(CLI::App& command) {
  return command.get_options([](CLI::Option* option) {
    return option->get_configurable() && !option->get_lnames().empty();
  });
}

// Those that have flags.
std::vector<CLI::App*> Commands(CLI::App& app) {
  return app.get_subcommands([](CLI::App* command) { return !Flags(*command).empty(); });
}

// Null if the command has none of that long name.
CLI::Option* FindFlag(CLI::App& command, const std::string& name) {
  for (CLI::Option* option : Flags(command)) {
    if (option->check_lname(name)) return option;
  }
  return nullptr;
}

// THROWS CLI::Error if the flag does not take `value`.
void SetDefault(CLI::Option* option, const std::string& name, const std::string& value) {
  const bool is_switch = option->get_items_expected_max() == 0;
  option->default_val(is_switch ? option->get_flag_value(name, value) : value);
  option->required(false);
  if (option->check_lname("api-key")) option->default_str("");  // --help shows defaults
}

// A config file, as it is read.
class ConfigFile {
 public:
  explicit ConfigFile(std::string path) : path_(std::move(path)) {
    try {
      root_ = toml::parse_file(path_);
    } catch (const toml::parse_error& error) {
      const auto begin = error.source().begin;
      if (begin.line == 0) throw CLI::ConfigError(path_ + ": it cannot be read");
      Fail(begin.line, std::string(error.description()));
    }
  }

  void Apply(CLI::App& app, CLI::App& chosen) const {
    for (const auto& [key, value] : root_) {  // tables come after, to go before what is said here
      if (!value.is_table()) ApplyTop(app, chosen, std::string(key.str()), value);
    }
    for (const auto& [key, value] : root_) {
      if (value.is_table()) ApplyTable(app, chosen, std::string(key.str()), *value.as_table());
    }
  }

 private:
  [[noreturn]] void Fail(size_t line, const std::string& what) const {
    throw CLI::ConfigError(fmt::format("{}:{}: {}", path_, line, what));
  }

  void ApplyTop(CLI::App& app, CLI::App& chosen, const std::string& key,
                const toml::node& value) const {
    std::vector<std::string> known;
    bool is_known = false;
    for (CLI::App* command : Commands(app)) {
      is_known = is_known || FindFlag(*command, key) != nullptr;
      AddFlagNames(*command, &known);
    }
    if (!is_known) {
      Fail(value.source().begin.line,
           fmt::format("no command has a flag --{}{}", key, DidYouMean(key, known)));
    }
    if (CLI::Option* option = FindFlag(chosen, key)) Set(option, key, value);
  }

  void ApplyTable(CLI::App& app, CLI::App& chosen, const std::string& name,
                  const toml::table& table) const {
    const auto commands = Commands(app);
    const auto command = std::find_if(commands.begin(), commands.end(),
                                      [&](CLI::App* it) { return it->get_name() == name; });
    if (command == commands.end()) {
      std::vector<std::string> known;
      for (CLI::App* it : commands) known.push_back(it->get_name());
      Fail(table.source().begin.line,
           fmt::format("there is no command '{}' with flags{}", name, DidYouMean(name, known)));
    }
    for (const auto& [key, value] : table) {
      const std::string flag(key.str());
      CLI::Option* option = FindFlag(**command, flag);
      if (option == nullptr) {
        std::vector<std::string> known;
        AddFlagNames(**command, &known);
        Fail(value.source().begin.line,
             fmt::format("{} has no flag --{}{}", name, flag, DidYouMean(flag, known)));
      }
      if (*command == &chosen) Set(option, flag, value);
    }
  }

  static void AddFlagNames(CLI::App& command, std::vector<std::string>* names) {
    for (const CLI::Option* option : Flags(command)) {
      names->insert(names->end(), option->get_lnames().begin(), option->get_lnames().end());
    }
  }

  void Set(CLI::Option* option, const std::string& key, const toml::node& value) const {
    const size_t line = value.source().begin.line;
    const bool is_switch = option->get_items_expected_max() == 0;
    if (is_switch != value.is_boolean()) {
      Fail(line, is_switch ? fmt::format("{} is true or false", key)
                           : fmt::format("{} takes a value, not true or false", key));
    }
    try {
      SetDefault(option, key, Text(*option, key, value));
    } catch (const CLI::Error& error) {
      Fail(line, error.what());
    }
  }

  // The value as the command line would have it.
  std::string Text(const CLI::Option& option, const std::string& key,
                   const toml::node& value) const {
    if (const auto* text = value.as_string()) return text->get();
    if (const auto* number = value.as_integer()) return fmt::to_string(number->get());
    if (const auto* number = value.as_floating_point()) return fmt::to_string(number->get());
    if (const auto* boolean = value.as_boolean()) return boolean->get() ? "true" : "false";
    const auto* array = value.as_array();
    const char delimiter = option.get_delimiter();
    if (array == nullptr || delimiter == '\0') {
      Fail(value.source().begin.line, fmt::format("{} is one string or number{}", key,
                                                  delimiter ? ", or a list of them" : ""));
    }
    std::string joined;
    for (const toml::node& element : *array) {
      if (!joined.empty()) joined += delimiter;
      joined += Text(option, key, element);
    }
    return joined;
  }

  std::string path_;
  toml::table root_;
};

// The path, and whether somebody asked for it, so that it has to be there.
struct ConfigPath {
  std::string path;
  bool is_given = false;
};

ConfigPath FindConfig(const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size() && args[i] != "--"; i++) {
    if (args[i] == "--config" && i + 1 < args.size()) return {args[i + 1], true};
    if (args[i].starts_with("--config=")) return {args[i].substr(9), true};
  }
  if (const std::string path = Environment("TRELLIS_CONFIG"); !path.empty()) return {path, true};
  std::string folder = Environment("XDG_CONFIG_HOME");
  if (!folder.starts_with('/')) {
    folder = Environment("HOME");
    if (folder.empty()) return {};
    folder += "/.config";
  }
  return {folder + "/trellis/config.toml", false};
}

// Null if there is none, or one that has no settings.
CLI::App* ChosenCommand(CLI::App& app, const std::vector<std::string>& args) {
  for (size_t i = 0; i < args.size(); i++) {
    if (args[i] == "--config") {
      i++;
    } else if (!args[i].starts_with('-')) {
      for (CLI::App* command : Commands(app)) {
        if (command->get_name() == args[i]) return command;
      }
      return nullptr;
    }
  }
  return nullptr;
}

void ApplyEnvironment(CLI::App& command) {
  for (CLI::Option* option : Flags(command)) {
    for (const std::string& name : option->get_lnames()) {
      const std::string variable = EnvironmentNameOf(name);
      const std::string value = variable.empty() ? "" : Environment(variable);
      if (value.empty()) continue;
      try {
        SetDefault(option, name, value);
      } catch (const CLI::Error& error) {
        throw CLI::ConfigError(fmt::format("${}: {}", variable, error.what()));
      }
    }
  }
}

}  // namespace

std::string EnvironmentNameOf(const std::string& flag) {
  if (flag == "models-dir") return "";  // TRELLIS_MODELS_DIR is the folder of pulled models
  std::string name = "TRELLIS_" + flag;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) {
    return c == '-' ? '_' : static_cast<char>(std::toupper(c));
  });
  return name;
}

void AddConfigFlag(CLI::App& app) {
  app.add_option("--config", "Flags as TOML (default: ~/.config/trellis/config.toml)")
      ->type_name("FILE")
      ->configurable(false);
  app.footer(
      "A flag can also be set by the environment (--kv-cache: TRELLIS_KV_CACHE) and in a config\n"
      "file (kv-cache = \"2GiB\"; --config FILE, else ~/.config/trellis/config.toml): trellis man");
}

void ApplySettings(CLI::App& app, const std::vector<std::string>& args) {
  CLI::App* chosen = ChosenCommand(app, args);
  if (chosen == nullptr) return;
  const ConfigPath config = FindConfig(args);
  std::error_code error;
  if (config.is_given || std::filesystem::exists(config.path, error)) {
    ConfigFile(config.path).Apply(app, *chosen);
  }
  ApplyEnvironment(*chosen);
}

}  // namespace trellis
