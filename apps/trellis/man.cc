// trellis man: the manual page, of the same description as --help.
#include <fmt/format.h>

#include "commands.h"
#include "description.h"
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

}  // namespace

void AddMan(CLI::App& app) {
  CLI::App* man = app.add_subcommand("man", "Print the manual page: trellis man | man -l -");
  man->callback([&app] { PrintManual(app); });
}

}  // namespace trellis
