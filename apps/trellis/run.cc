// trellis run: one answer on the terminal, streamed.
#include <fmt/format.h>

#include <iostream>
#include <iterator>
#include <limits>
#include <optional>

#include "commands.h"
#include "console.h"
#include "flags.h"
#include "generation.h"
#include "interrupt.h"
#include "loading.h"
#include "models.h"
#include "os/mapped_file.h"

namespace trellis {
namespace {

struct Flags {
  ModelOptions model;
  std::optional<std::string> prompt;
  std::string file, system;
  bool chat = false;
  GenerationOptions generation;
};

Result<std::string> ReadPrompt(const Flags& flags) {
  std::string text;
  if (!flags.file.empty()) {
    TRELLIS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(flags.file));
    text.assign(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  } else {
    text = flags.prompt.value_or("-");
    if (text == "-") text.assign(std::istreambuf_iterator<char>(std::cin), {});
  }
  if (text.empty()) return Status(StatusCode::kInvalidArgument, "the prompt is empty");
  return text;
}

Result<std::vector<TokenId>> Encode(const Flags& flags, const std::string& text,
                                    const Service& service) {
  if (!flags.chat && flags.system.empty()) {
    return service.tokenizer->Encode(text, AddSpecial::kByVocabulary, SpecialTokens::kParse);
  }
  std::vector<ChatMessage> messages;
  const auto add = [&](const char* role, const std::string& content) {
    messages.emplace_back().role = role;
    messages.back().content = content;
  };
  if (!flags.system.empty()) add("system", flags.system);
  add("user", text);
  TRELLIS_ASSIGN_OR_RETURN(ChatPrompt prompt, service.chat_template->Render(messages));
  return std::move(prompt.tokens);
}

Status Answer(Flags flags) {
  TRELLIS_ASSIGN_OR_RETURN(const std::string text, ReadPrompt(flags));
  TRELLIS_RETURN_IF_ERROR(
      ValidateSampling(flags.generation.sampling, std::numeric_limits<TokenId>::max()));
  TRELLIS_RETURN_IF_ERROR(ResolveModel(&flags.model, InterruptCatcher::HasCaught));
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<Service> service, LoadService(flags.model, {}));
  TRELLIS_ASSIGN_OR_RETURN(std::vector<TokenId> prompt, Encode(flags, text, *service));
  const InterruptCatcher interrupt(InterruptCatcher::Second::kEndsTheProcess);
  const auto print = [](std::string_view piece) {
    fmt::print("{}", piece);
    FlushOutput();
  };
  TRELLIS_ASSIGN_OR_RETURN(const GenerationStats stats,
                           Generate(*service, std::move(prompt), flags.generation,
                                    {.on_text = print, .is_stopped = InterruptCatcher::HasCaught}));
  print("\n");
  Say("prompt: {} tokens, {} cached, {:.1f} tok/s; answer: {} tokens, {:.1f} tok/s\n",
      stats.prompt_tokens, stats.cached_tokens, stats.prompt_rate(), stats.generated_tokens,
      stats.generated_rate());
  return Status::Ok();
}

}  // namespace

void AddRun(CLI::App& app, int* exit_status) {
  auto flags = std::make_shared<Flags>();
  CLI::App* run = app.add_subcommand("run", "Answer one prompt on the terminal");
  AddModelFlags(run, &flags->model);
  CLI::Option* prompt = run->add_option("-p,--prompt,prompt", flags->prompt,
                                        "The prompt; none or - reads standard input")
                            ->type_name("TEXT");
  run->add_option("-f,--file", flags->file, "The prompt is what this file holds")
      ->excludes(prompt)
      ->type_name("FILE");
  run->add_flag("--chat", flags->chat, "Put the prompt into the model's chat template");
  run->add_option("--system", flags->system, "The same, behind this system message")
      ->type_name("TEXT");
  AddThreadsFlag(run, &flags->model);
  AddKvTypeFlag(run, &flags->model);
  AddCacheFlags(run, &flags->model);
  AddGenerationFlags(run, &flags->generation);
  run->callback([flags, exit_status] {
    *exit_status = ExitStatusOf(Answer(*flags));
    if (InterruptCatcher::HasCaught()) *exit_status = kExitInterrupted;
  });
}

}  // namespace trellis
