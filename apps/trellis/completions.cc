// trellis completions: what a shell offers behind Tab.
#include <fmt/format.h>

#include "commands.h"
#include "description.h"
#include "flags.h"

namespace trellis {
namespace {

using Offers = ArgumentDescription::Offers;

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// Words and flags of a command, and of one of its arguments without a name, as one string each.
std::string FlagNames(const std::vector<ArgumentDescription>& arguments) {
  std::vector<std::string> names;
  for (const ArgumentDescription& argument : arguments) {
    names.insert(names.end(), argument.names.begin(), argument.names.end());
  }
  return fmt::format("{}", fmt::join(names, " "));
}

std::string BashOffer(const ArgumentDescription& argument) {
  switch (argument.offers) {
    case Offers::kChoices:
      return fmt::format("_trellis_words '{}'", fmt::join(argument.choices, " "));
    case Offers::kFiles:
      return "_trellis_files";
    case Offers::kModels:
      return "_trellis_words \"$(trellis list --quiet 2>/dev/null)\"; _trellis_files";
    case Offers::kNothing:
      break;
  }
  return ":";
}

void PrintBash(const CLI::App& app) {
  const auto commands = DescribeCommands(app);
  std::string names;
  for (const CommandDescription& command : commands) names += command.name + " ";
  fmt::print(R"(# bash completion for trellis
_trellis_words() {{
  local word
  while read -r word; do COMPREPLY+=("$word"); done < <(compgen -W "$1" -- "$cur")
}}

_trellis_files() {{
  local file
  compopt -o filenames 2>/dev/null
  while read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
}}

_trellis() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} command='' word
  # Names of models have colons, at which readline breaks words.
  if declare -F _get_comp_words_by_ref >/dev/null; then _get_comp_words_by_ref -n : cur prev; fi
  COMPREPLY=()
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case " {}" in *" $word "*) command=$word; break ;; esac
  done
  case "$command $prev" in
)",
             names);
  for (const CommandDescription& command : commands) {
    for (const ArgumentDescription& argument : command.arguments) {
      if (argument.value.empty() || argument.names.empty()) continue;
      std::vector<std::string> patterns;
      for (const std::string& name : argument.names) {
        patterns.push_back(fmt::format("'{} {}'", command.name, name));
      }
      fmt::print("    {}) {} ;;\n", fmt::join(patterns, " | "), BashOffer(argument));
    }
  }
  fmt::print("    *' --config') _trellis_files ;;\n    *)\n      case \"$command $cur\" in\n");
  fmt::print("        ' '*) _trellis_words '{}{}' ;;\n", names, FlagNames(DescribeArguments(app)));
  for (const CommandDescription& command : commands) {
    fmt::print("        '{} -'*) _trellis_words '{} --config' ;;\n", command.name,
               FlagNames(command.arguments));
    for (const ArgumentDescription& argument : command.arguments) {
      if (argument.names.empty()) {
        fmt::print("        '{} '*) {} ;;\n", command.name, BashOffer(argument));
        break;  // of several the first: the others are files as well
      }
    }
  }
  fmt::print(R"(      esac
      ;;
  esac
  if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$cur"; fi
}}

complete -F _trellis trellis
)");
}

std::string ZshOffer(const ArgumentDescription& argument) {
  switch (argument.offers) {
    case Offers::kChoices:
      return fmt::format("({})", fmt::join(argument.choices, " "));
    case Offers::kFiles:
      return "_files";
    case Offers::kModels:
      return "_trellis_models";
    case Offers::kNothing:
      break;
  }
  return " ";
}

// For single quotes, inside [] and before a colon.
std::string ZshEscaped(std::string text) {
  for (const char* special : {"\\", "[", "]", ":"}) {
    text = Replaced(text, special, std::string("\\") + special);
  }
  return Replaced(text, "'", "'\\''");
}

std::string ZshArguments(const std::vector<ArgumentDescription>& arguments) {
  std::string specs;
  size_t place = 0;
  for (const ArgumentDescription& argument : arguments) {
    std::string value;
    if (!argument.value.empty()) {
      value = fmt::format(":{}:{}", ZshEscaped(argument.value), ZshOffer(argument));
    }
    if (argument.names.empty()) {
      specs += fmt::format(" \\\n        '{}{}'", ++place, value);
    }
    for (const std::string& name : argument.names) {
      specs += fmt::format(" \\\n        '({}){}[{}]{}'", fmt::join(argument.names, " "), name,
                           ZshEscaped(argument.help), value);
    }
  }
  return specs;
}

void PrintZsh(const CLI::App& app) {
  fmt::print(R"(#compdef trellis
_trellis_models() {{
  local -a models
  models=("${{(@f)$(trellis list --quiet 2>/dev/null)}}")
  compadd -a models
  _files
}}

_trellis() {{
  local -a commands
  commands=(
)");
  const auto commands = DescribeCommands(app);
  for (const CommandDescription& command : commands) {
    fmt::print("    '{}:{}'\n", command.name, ZshEscaped(command.help));
  }
  fmt::print(R"(  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
)");
  for (const CommandDescription& command : commands) {
    fmt::print("    {})\n      _arguments{} \\\n        '--config[Flags as TOML]:FILE:_files' ;;\n",
               command.name, ZshArguments(command.arguments));
  }
  fmt::print(R"(  esac
}}

if [ "$funcstack[1]" = _trellis ]; then _trellis "$@"; else compdef _trellis trellis; fi
)");
}

std::string FishOffer(const ArgumentDescription& argument) {
  if (argument.value.empty()) return "";
  switch (argument.offers) {
    case Offers::kChoices:
      return fmt::format(" -x -a '{}'", fmt::join(argument.choices, " "));
    case Offers::kFiles:
      return " -r -F";
    case Offers::kModels:
      return " -r -F -a '(trellis list --quiet 2>/dev/null)'";
    case Offers::kNothing:
      break;
  }
  return " -x";
}

void PrintFish(const CLI::App& app) {
  const auto quoted = [](const std::string& text) {
    return "'" + Replaced(Replaced(text, "\\", "\\\\"), "'", "\\'") + "'";
  };
  const auto print = [&](const std::string& condition, const ArgumentDescription& argument) {
    std::string names;
    for (const std::string& name : argument.names) {
      const bool is_long = name.starts_with("--");
      names += is_long ? " -l " + name.substr(2)
                       : fmt::format(" {} {}", name.size() > 2 ? "-o" : "-s", name.substr(1));
    }
    fmt::print("complete -c trellis -n {}{}{} -d {}\n", quoted(condition), names,
               FishOffer(argument), quoted(argument.help));
  };
  fmt::print("# fish completion for trellis\ncomplete -c trellis -f\n");
  for (const ArgumentDescription& argument : DescribeArguments(app)) {
    print("__fish_use_subcommand", argument);
  }
  for (const CommandDescription& command : DescribeCommands(app)) {
    fmt::print("complete -c trellis -n __fish_use_subcommand -a {} -d {}\n", command.name,
               quoted(command.help));
    for (const ArgumentDescription& argument : command.arguments) {
      print("__fish_seen_subcommand_from " + command.name, argument);
    }
  }
}

}  // namespace

void AddCompletions(CLI::App& app) {
  auto shell = std::make_shared<std::string>();
  CLI::App* completions =
      app.add_subcommand("completions", "Print what a shell reads to complete commands and flags");
  AddChoice(completions, "shell", shell.get(),
            "bash: to /usr/share/bash-completion/completions/trellis; zsh: as _trellis into a "
            "folder of $fpath; fish: to ~/.config/fish/completions/trellis.fish",
            {"bash", "zsh", "fish"})
      ->required();
  completions->callback([shell, &app] {
    (*shell == "bash" ? PrintBash : *shell == "zsh" ? PrintZsh : PrintFish)(app);
  });
}

}  // namespace trellis
