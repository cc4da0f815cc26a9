#include "description.h"

namespace trellis {
namespace {

using Offers = ArgumentDescription::Offers;

ArgumentDescription Describe(const CLI::Option& option) {
  ArgumentDescription described;
  for (const std::string& name : option.get_snames()) described.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) described.names.push_back("--" + name);
  if (option.check_lname("hf")) described.names.insert(described.names.begin(), "-hf");
  described.help = option.get_description();
  if (option.get_configurable() && !option.get_lnames().empty()) {
    described.setting = option.get_lnames().back();  // temperature, of --temp and --temperature
  }
  if (option.get_items_expected_max() == 0) return described;
  described.value = option.get_type_name();
  described.default_value = option.get_default_str();
  const std::string& value = described.value;
  if (value.find('|') != value.npos) {
    described.offers = Offers::kChoices;
    described.choices = CLI::detail::split(value, '|');
  } else if (value == "FILE" || value == "PATH") {
    described.offers = Offers::kFiles;
  } else if (value == "MODEL") {
    described.offers = Offers::kModels;
  }
  return described;
}

}  // namespace

std::vector<ArgumentDescription> DescribeArguments(const CLI::App& app) {
  std::vector<ArgumentDescription> arguments;
  for (const CLI::Option* option : app.get_options()) arguments.push_back(Describe(*option));
  return arguments;
}

std::vector<CommandDescription> DescribeCommands(const CLI::App& app) {
  std::vector<CommandDescription> commands;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    commands.push_back(
        {command->get_name(), command->get_description(), DescribeArguments(*command)});
  }
  return commands;
}

}  // namespace trellis
