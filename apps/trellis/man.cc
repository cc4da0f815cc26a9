// trellis man: the manual page and the reference (docs/configuration.md), from what --help is from.
#include <fmt/format.h>

#include "commands.h"
#include "description.h"
#include "flags.h"
#include "settings.h"

namespace trellis {
namespace {

// Text for troff: nothing in it is a request or an escape.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\') {
      escaped += "\\e";
    } else if (c == '-') {
      escaped += "\\-";
    } else if (c == '~' || c == '^') {
      escaped += c == '~' ? "\\(ti" : "\\(ha";
    } else {
      escaped += c;
    }
  }
  if (escaped.starts_with('.') || escaped.starts_with('\'')) escaped.insert(0, "\\&");
  return escaped;
}

void PrintArgument(const ArgumentDescription& argument) {
  std::string head;
  for (const std::string& name : argument.names) {
    head += fmt::format("{}\\fB{}\\fR", head.empty() ? "" : ", ", Escaped(name));
  }
  if (!argument.value.empty()) {
    head += fmt::format("{}\\fI{}\\fR", head.empty() ? "" : " ", Escaped(argument.value));
  }
  fmt::print(".TP\n{}\n{}", head, Escaped(argument.help));
  if (!argument.default_value.empty()) fmt::print(" [{}]", Escaped(argument.default_value));
  fmt::print(".\n");
}

void PrintCommand(const CommandDescription& command) {
  std::string places;
  for (const ArgumentDescription& argument : command.arguments) {
    if (argument.names.empty()) places += fmt::format(" \\fI{}\\fR", Escaped(argument.value));
  }
  fmt::print(".SS trellis {}\n\\fBtrellis {}\\fR [\\fIFLAGS\\fR]{}\n.PP\n{}.\n", command.name,
             command.name, places, Escaped(command.help));
  for (const ArgumentDescription& argument : command.arguments) PrintArgument(argument);
}

constexpr const char* kHead = R"(.TH TRELLIS 1 "" "trellis {}" "User Commands"
.SH NAME
trellis \- run GGUF language models and remember every prefix
.SH SYNOPSIS
.B trellis
[\fB\-\-config\fR \fIFILE\fR]
.I COMMAND
[\fIFLAGS\fR]
.SH DESCRIPTION
Trellis serves GGUF language models over HTTP with OpenAI's API, and talks with them on the terminal.
One tree over the prefixes of all prompts holds their keys and values, so that nothing is computed
again while it fits into memory.
.SH COMMANDS
)";

constexpr const char* kTail = R"(.SH CONFIGURATION
A flag is taken from the command line, else from the environment, else from the config file, else it has its default.
.PP
In the environment the flag \fB\-\-kv\-cache\fR is \fBTRELLIS_KV_CACHE\fR; a switch is true or false.
.PP
The config file is TOML. A key is a flag without its dashes. Keys at the top are for all commands that have the flag,
keys in a table for the command of that name, where they go first:
.PP
.nf
.RS
threads = 8
kv\-cache = "4GiB"
[serve]
port = 9000
[chat]
temperature = 0.7
.RE
.fi
.PP
What it has besides is an error, which names the line.
.SH MODELS
\fB\-\-model\fR takes a file, or a pulled model as \fBtrellis list\fR names it: \fIUSER/REPO:QUANT\fR, \fIUSER/REPO\fR
(Q4_K_M if it is there, else Q8_0, else the first), or the name of the file where only one has it.
.SH ENVIRONMENT
.TP
.B TRELLIS_MODELS_DIR
Where pulled models lie.
.TP
.B HF_ENDPOINT
The hub, where \fB\-\-hub\fR does not say it.
.TP
.BR HF_TOKEN ", " HF_TOKEN_PATH ", " HF_HOME
The token for the hub, or the file that holds it. It is sent to the hub's own address only.
.TP
.B TRELLIS_ISA
Instructions to use instead of the best ones: scalar, avx2, ...
.SH FILES
.TP
.I \(ti/.config/trellis/config.toml
The config file.
.TP
.I \(ti/.cache/trellis/models
Pulled models: \fIUSER/REPO/FILE\fR of a hub, \fIHOST/FILE\fR of another URL.
.TP
.I \(ti/.cache/trellis/packed
Packed weights.
.TP
.I \(ti/.local/state/trellis/history
What was typed into \fBtrellis chat\fR.
.PP
XDG_CONFIG_HOME, XDG_CACHE_HOME and XDG_STATE_HOME move them.
.SH EXIT STATUS
0: it worked. 2: a wrong flag, a wrong config file, or a file that is no model. 130: interrupted. 1: anything else.
)";

void PrintManual(const CLI::App& app) {
  fmt::print(fmt::runtime(kHead), TRELLIS_VERSION);
  for (const CommandDescription& command : DescribeCommands(app)) PrintCommand(command);
  fmt::print("{}", kTail);
}

// Text for a cell of a table in Markdown.
std::string Cell(const std::string& text) {
  std::string cell;
  for (const char c : text) {
    if (c == '|' || c == '<') cell += '\\';
    cell += c;
  }
  return cell;
}

std::string Code(const std::string& text) {
  std::string code;
  for (const char c : text) code += c == '|' ? "\\|" : std::string(1, c);
  return code.empty() ? "" : fmt::format("`{}`", code);
}

// Help that says its default itself, "Threads (default: all)", in two.
struct Help {
  std::string text;
  std::string default_text;
};

Help SplitHelp(const std::string& help) {
  static constexpr std::string_view kMark = " (default: ";
  const size_t at = help.find(kMark);
  if (at == help.npos || !help.ends_with(')')) return {help, ""};
  const size_t begin = at + kMark.size();
  return {help.substr(0, at), help.substr(begin, help.size() - 1 - begin)};
}

void PrintReferenceRow(const ArgumentDescription& argument) {
  std::string head = fmt::format("{}", fmt::join(argument.names, ", "));
  if (!argument.value.empty()) head += (head.empty() ? "" : " ") + argument.value;
  const Help help = SplitHelp(argument.help);
  std::string default_text = Cell(help.default_text);
  if (!argument.default_value.empty()) default_text = Code(argument.default_value);
  if (argument.value.empty()) default_text = Code("false");
  std::string variable;
  if (!argument.setting.empty()) variable = EnvironmentNameOf(argument.setting);
  fmt::print("| {} | {} | {} | {} | {} |\n", Code(head), default_text, Code(argument.setting),
             Code(variable), Cell(help.text));
}

void PrintReferenceOf(const CommandDescription& command) {
  std::string usage = "trellis " + command.name;
  for (const ArgumentDescription& argument : command.arguments) {
    if (argument.names.empty()) usage += " " + argument.value;
  }
  fmt::print("\n## {}\n`{}`: {}.\n", command.name, usage, command.help);
  if (command.arguments.size() == 1) return;  // --help
  fmt::print("\n| flag | default | TOML | environment | |\n| --- | --- | --- | --- | --- |\n");
  for (const ArgumentDescription& argument : command.arguments) {
    if (argument.names != std::vector<std::string>{"-h", "--help"}) PrintReferenceRow(argument);
  }
}

constexpr const char* kReferenceHead = R"(# Configuration reference
Written by `trellis man --format markdown`; a test holds this file to it.

A flag is taken from the command line, else from the environment, else from the config file, else it has its default.
The config file is `--config FILE`, else `TRELLIS_CONFIG`, else `~/.config/trellis/config.toml` if it is there;
[cli.md](cli.md#settings) has an example. A key at its top is for every command that has the flag, one in a table (`[serve]`) for that command.
Switches, which have no value here, are `true` or `false` in both.
)";

void PrintReference(const CLI::App& app) {
  fmt::print("{}", kReferenceHead);
  for (const CommandDescription& command : DescribeCommands(app)) PrintReferenceOf(command);
}

}  // namespace

void AddMan(CLI::App& app) {
  auto format = std::make_shared<std::string>("man");
  CLI::App* man = app.add_subcommand("man", "Print the manual page: trellis man | man -l -");
  // No setting: the manual is there when a config file is wrong.
  AddChoice(man, "--format", format.get(), "A manual page, or docs/configuration.md",
            {"man", "markdown"})
      ->configurable(false);
  man->callback([format, &app] { (*format == "man" ? PrintManual : PrintReference)(app); });
}

}  // namespace trellis
