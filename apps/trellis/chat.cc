// trellis chat: a conversation on the terminal.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <limits>

#include "api/json_text.h"
#include "chat_model.h"
#include "commands.h"
#include "console.h"
#include "flags.h"
#include "interrupt.h"
#include "line_reader.h"
#include "models.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  std::string url, api_key, system;
  GenerationOptions generation;
};

// The parameters of /set: the flags, under their names.
class Parameters {
 public:
  explicit Parameters(GenerationOptions* options) : options_(options), app_("set") {
    app_.set_help_flag("");
    AddGenerationFlags(&app_, options);
  }

  // ERRORS: kInvalidArgument; then nothing is changed.
  Status Set(const std::string& name, const std::string& value) {
    if (name.empty() || app_.get_option_no_throw("--" + name) == nullptr) {
      std::vector<std::string> names;
      for (const CLI::Option* option : app_.get_options()) {
        names.insert(names.end(), option->get_lnames().begin(), option->get_lnames().end());
      }
      return Status(StatusCode::kInvalidArgument,
                    fmt::format("there is no parameter '{}'{}", name, DidYouMean(name, names)));
    }
    const GenerationOptions before = *options_;
    Status status;
    try {
      app_.parse(std::vector<std::string>{"--" + name + "=" + value});
      status = ValidateSampling(options_->sampling, std::numeric_limits<TokenId>::max());
    } catch (const CLI::Error& error) {
      status = Status(StatusCode::kInvalidArgument, error.what());
    }
    if (!status.ok()) *options_ = before;
    return status;
  }

  void Print() {
    for (CLI::Option* option : app_.get_options([](CLI::Option*) { return true; })) {
      option->capture_default_str();
      fmt::print("  {:<18} {}\n", option->get_lnames().back(), option->get_default_str());
    }
  }

 private:
  GenerationOptions* options_;
  CLI::App app_;
};

class Chat {
 public:
  Chat(ChatModel& model, LineReader& reader, const Flags& flags)
      : model_(model), reader_(reader), options_(flags.generation), system_(flags.system) {}

  // Until the end of input or /exit. ERRORS: kUnavailable: input did not come from a person, and
  // something in it failed (which was said).
  Status Run() {
    if (reader_.is_terminal()) {
      Hint(fmt::format("{}: /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves",
                       model_.name()));
    }
    size_t num_failed = 0;
    while (!is_over_) {
      std::string text;
      const LineReader::Outcome outcome = ReadMessage(&text);
      if (outcome == LineReader::Outcome::kEnd) break;
      if (outcome == LineReader::Outcome::kInterrupted || text.empty()) continue;
      const Status status = text.starts_with('/') ? Obey(text) : Ask(text);
      if (status.ok()) continue;
      num_failed++;
      Say("trellis: {}\n", status.message());
    }
    if (reader_.is_terminal() || num_failed == 0) return Status::Ok();
    return Status(StatusCode::kUnavailable, fmt::format("{} lines failed", num_failed));
  }

 private:
  struct Command {
    const char* name;
    const char* argument;  // empty: it takes none
    const char* help;
    Status (Chat::*obey)(const std::string& argument);
  };
  static const std::array<Command, 9> kCommands;

  // What is no part of the conversation.
  void Hint(const std::string& text) const {
    Say("{}\n", reader_.is_terminal() ? "\033[2m" + text + "\033[0m" : text);
  }

  // One line; several between """ and """, or ending in a backslash but for the last.
  LineReader::Outcome ReadMessage(std::string* text) {
    std::string line;
    if (const auto outcome = reader_.Read(">>> ", &line); outcome != LineReader::Outcome::kLine) {
      return outcome;
    }
    const bool is_quoted = line.starts_with(R"(""")");
    if (is_quoted) line.erase(0, 3);
    const std::string_view end = is_quoted ? R"(""")" : "\\";
    while (line.ends_with(end) != is_quoted) {
      if (!is_quoted) line.pop_back();
      *text += line + "\n";
      const auto outcome = reader_.Read("... ", &line);
      if (outcome == LineReader::Outcome::kInterrupted) return outcome;
      if (outcome == LineReader::Outcome::kEnd) return LineReader::Outcome::kLine;
    }
    if (is_quoted) line.resize(line.size() - end.size());
    *text += line;
    return LineReader::Outcome::kLine;
  }

  Status Obey(const std::string& line) {
    const size_t space = std::min(line.find(' '), line.size());
    std::string name = line.substr(1, space - 1);
    if (name == "?") name = "help";
    if (name == "bye" || name == "quit") name = "exit";
    std::string argument = line.substr(space);
    argument.erase(0, argument.find_first_not_of(' '));
    std::vector<std::string> names;
    for (const Command& command : kCommands) {
      if (name == command.name) return (this->*command.obey)(argument);
      names.emplace_back(command.name);
    }
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("there is no command /{}{} (to say it, begin with a space)", name,
                              DidYouMean(name, names)));
  }

  Status Ask(const std::string& text) {
    const std::vector<ChatMessage> before = turns_;
    Add("user", text);
    return Answer(before);
  }

  void Add(const char* role, const std::string& content) {
    turns_.emplace_back().role = role;
    turns_.back().content = content;
  }

  // The last turn is answered; if nothing comes of it, they are `before` again.
  Status Answer(const std::vector<ChatMessage>& before) {
    std::vector<ChatMessage> messages = turns_;
    if (!system_.empty()) {
      messages.emplace(messages.begin())->role = "system";
      messages.front().content = system_;
    }
    std::string answer;
    ChatListener listener;
    listener.on_text = [&](std::string_view piece) {
      answer += piece;
      fmt::print("{}", piece);
      FlushOutput();
    };
    listener.on_thought = [&](std::string_view piece) {
      if (!reader_.is_terminal()) return;
      fmt::print("\033[2m{}\033[0m", piece);
      FlushOutput();
    };
    listener.is_stopped = InterruptCatcher::HasCaught;
    const InterruptCatcher interrupt(InterruptCatcher::Second::kIsNotedToo);
    const auto stats = model_.Answer(messages, options_, listener);
    if (!answer.empty() || stats.ok()) {
      fmt::print("\n");
      FlushOutput();
    }
    if (!stats.ok() || (stats->was_stopped && answer.empty())) {
      turns_ = before;
      if (stats.ok()) Hint("stopped before a word was said: as if nothing had been asked");
      return stats.status();
    }
    Add("assistant", answer);
    Hint(fmt::format(
        "{}{} tokens, {:.1f} tok/s, first after {:.2f} s, {} of {} prompt tokens cached",
        stats->was_stopped ? "stopped: " : "", stats->generated_tokens, stats->generated_rate(),
        stats->first_token_seconds, stats->cached_tokens, stats->prompt_tokens));
    return Status::Ok();
  }

  Status Help(const std::string&) {
    for (const Command& command : kCommands) {
      fmt::print("  {:<20} {}\n", fmt::format("/{} {}", command.name, command.argument),
                 command.help);
    }
    fmt::print("  {:<20} Several lines; a backslash at the end of a line goes on too\n",
               R"(""" ... """)");
    return Status::Ok();
  }

  Status Clear(const std::string&) {
    turns_.clear();
    return Status::Ok();
  }

  Status System(const std::string& text) {
    system_ = text;
    return Status::Ok();
  }

  Status Set(const std::string& argument) {
    const size_t space = std::min(argument.find(' '), argument.size());
    std::string value = argument.substr(space);
    value.erase(0, value.find_first_not_of(' '));
    return Parameters(&options_).Set(argument.substr(0, space), value);
  }

  Status Show(const std::string&) {
    fmt::print("  {:<18} {}\n  {:<18} {}\n  {:<18} {}\n", "model", model_.name(), "system", system_,
               "messages", turns_.size());
    Parameters(&options_).Print();
    return Status::Ok();
  }

  Status Regenerate(const std::string&) {
    if (turns_.empty()) {
      return Status(StatusCode::kInvalidArgument, "there is no answer yet");
    }
    const std::vector<ChatMessage> before = turns_;
    turns_.pop_back();
    return Answer(before);
  }

  // As the body of a request, so that other tools read it (trellis explain).
  Status Save(const std::string& path) {
    OrderedJson body = {{"model", model_.name()}, {"messages", OrderedJson::array()}};
    if (!system_.empty()) body["messages"].push_back({{"role", "system"}, {"content", system_}});
    for (const ChatMessage& turn : turns_) {
      body["messages"].push_back({{"role", turn.role}, {"content", turn.content}});
    }
    std::ofstream file(path);
    file << ToText(body) << "\n" << std::flush;
    if (file) return Status::Ok();
    return Status(StatusCode::kIo, fmt::format("{}: it cannot be written", path));
  }

  Status Load(const std::string& path) {
    std::ifstream file(path);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (!file) return Status(StatusCode::kIo, fmt::format("{}: it cannot be read", path));
    auto json = ParseJson(text);
    const auto invalid = [&](const char* what) {
      return Status(StatusCode::kInvalidArgument, fmt::format("{}: {}", path, what));
    };
    if (!json.ok() || !json.value().is_object()) return invalid("it is no JSON object");
    std::string system;
    std::vector<ChatMessage> turns;
    for (const Json& message : json.value().value("messages", Json::array())) {
      if (!message.is_object() || !message.value("role", Json()).is_string() ||
          !message.value("content", Json()).is_string()) {
        return invalid("a message has no role and content that are strings");
      }
      const auto role = message["role"].get<std::string>();
      const auto content = message["content"].get<std::string>();
      const char* wanted = turns.size() % 2 == 0 ? "user" : "assistant";
      if (role == "system" && turns.empty()) {
        system = content;
      } else if (role == wanted) {
        turns.emplace_back().role = role;
        turns.back().content = content;
      } else {
        return invalid("its messages are not of user and assistant in turns");
      }
    }
    if (turns.size() % 2 != 0) return invalid("its last message has no answer");
    system_ = system, turns_ = turns;
    Hint(fmt::format("{} messages", turns_.size()));
    return Status::Ok();
  }

  Status Exit(const std::string&) {
    is_over_ = true;
    return Status::Ok();
  }

  ChatModel& model_;
  LineReader& reader_;
  GenerationOptions options_;
  std::string system_;
  std::vector<ChatMessage> turns_;  // of user and assistant, one after the other
  bool is_over_ = false;
};

const std::array<Chat::Command, 9> Chat::kCommands = {{
    {"help", "", "This list", &Chat::Help},
    {"clear", "", "Forget what was said; the system message stays", &Chat::Clear},
    {"system", "TEXT", "Set the system message; nothing: have none", &Chat::System},
    {"set", "NAME VALUE", "Set a parameter; /show lists them", &Chat::Set},
    {"show", "", "The model, the system message, the parameters", &Chat::Show},
    {"regenerate", "", "Answer the last message anew", &Chat::Regenerate},
    {"save", "FILE", "Write what was said, as the body of a request", &Chat::Save},
    {"load", "FILE", "Go on from what /save has written", &Chat::Load},
    {"exit", "", "Leave, as Ctrl-D does", &Chat::Exit},
}};

Result<std::unique_ptr<ChatModel>> FindModel(const Flags& flags) {
  if (!flags.url.empty()) return ConnectChatModel(flags.url, flags.api_key, flags.model.path);
  ModelOptions model = flags.model;
  TRELLIS_RETURN_IF_ERROR(ResolveModel(&model, InterruptCatcher::HasCaught));
  return LoadChatModel(model);
}

Status RunChat(const Flags& flags) {
  TRELLIS_RETURN_IF_ERROR(
      ValidateSampling(flags.generation.sampling, std::numeric_limits<TokenId>::max()));
  TRELLIS_ASSIGN_OR_RETURN(const std::unique_ptr<ChatModel> model, FindModel(flags));
  const std::unique_ptr<LineReader> reader = LineReader::Create();
  return Chat(*model, *reader, flags).Run();
}

}  // namespace

void AddChat(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* chat = app.add_subcommand("chat", "Talk with a model, or with a server's");
  const CLI::Option* model = AddModelFlags(chat, &flags->model);
  chat->add_option("--url", flags->url,
                   "Instead: a server with OpenAI's API; -m is then its name for the model")
      ->type_name("URL");
  chat->add_option("--api-key", flags->api_key, "One of the server's keys")->type_name("KEY");
  chat->add_option("--system", flags->system, "System message")->type_name("TEXT");
  AddThreadsFlag(chat, &flags->model);
  AddKvTypeFlag(chat, &flags->model);
  AddCacheFlags(chat, &flags->model);
  AddGenerationFlags(chat, &flags->generation);
  chat->callback([flags, model, exit_status] {
    // A file's name in the settings is no server's name for a model.
    if (!flags->url.empty() && model->count() == 0) flags->model.path.clear();
    *exit_status = ExitStatusOf(RunChat(*flags));
  });
}

}  // namespace trellis
