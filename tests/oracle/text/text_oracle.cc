#include "text_oracle.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "records.h"

namespace trellis {

std::vector<std::string> AskReference(const std::string& model,
                                      const std::vector<std::string>& questions) {
  const std::filesystem::path stem =
      std::filesystem::temp_directory_path() / ("text_oracle-" + std::to_string(getpid()));
  const std::string in = stem.string() + ".in", out = stem.string() + ".out";
  WriteRecords(in, questions);
  const std::string command =
      std::string("'") + TEXT_REFERENCE + "' '" + model + "' " + in + " " + out;
  std::vector<std::string> answers;
  if (std::system(command.c_str()) == 0) {
    answers = ReadRecords(out);
  } else {
    ADD_FAILURE() << command << " failed";
  }
  std::filesystem::remove(in);
  std::filesystem::remove(out);
  return answers;
}

std::string JoinTokens(const std::vector<TokenId>& tokens) {
  std::string text;
  for (const TokenId token : tokens) text += std::to_string(token) + " ";
  return text;
}

std::string ReadFileOrDie(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) std::fprintf(stderr, "cannot read %s\n", path.c_str());
  TRELLIS_CHECK(in.good());
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace trellis
