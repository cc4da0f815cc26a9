#include "server/api_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <sstream>

namespace trellis {
namespace {

// Looks at every byte of `known`, whether or not they differ (the length of a key is no secret).
bool EqualsInConstantTime(std::string_view known, std::string_view given) {
  unsigned difference = known.size() == given.size() ? 0 : 1;
  for (size_t i = 0; i < known.size(); i++) {
    const char other = given.empty() ? '\0' : given[i % given.size()];
    difference |= static_cast<unsigned char>(known[i]) ^ static_cast<unsigned char>(other);
  }
  return difference == 0;
}

Status WrongLine(size_t number, const std::string& why) {
  return Status(StatusCode::kInvalidArgument, fmt::format("line {}: {}", number, why));
}

// What follows the key in its line.
Status ApplyWord(const std::string& word, size_t number, ApiKey* key) {
  constexpr std::string_view kScope = "scope=";
  if (word == "admin") {
    key->role = Role::kAdmin;
  } else if (word.starts_with(kScope) && word.size() > kScope.size()) {
    key->scope = "scope " + word.substr(kScope.size());
  } else {
    return WrongLine(number, "behind a key may stand scope=NAME and admin only");
  }
  return Status::Ok();
}

}  // namespace

Result<ApiKeys> ApiKeys::Parse(std::string_view text) {
  ApiKeys keys;
  std::istringstream lines{std::string(text)};
  std::string line;
  for (size_t number = 1; std::getline(lines, line); number++) {
    std::istringstream words(line);
    ApiKey key;
    if (!(words >> key.secret) || key.secret.starts_with('#')) continue;
    key.scope = "key " + key.secret;
    std::string word;
    while (words >> word && !word.starts_with('#')) {
      const Status status = ApplyWord(word, number, &key);
      if (!status.ok()) return status;
    }
    if (keys.Find(key.secret) != nullptr) return WrongLine(number, "this key is there already");
    keys.keys_.push_back(std::move(key));
  }
  if (keys.empty()) return Status(StatusCode::kInvalidArgument, "there is no key in it");
  return keys;
}

Result<ApiKeys> ApiKeys::Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    return Status(StatusCode::kIo, fmt::format("cannot read the keys in {}", path));
  }
  Result<ApiKeys> keys = Parse(text);
  if (!keys.ok()) {
    return Status(keys.status().code(), fmt::format("{}: {}", path, keys.status().message()));
  }
  return keys;
}

const ApiKey* ApiKeys::Find(std::string_view secret) const {
  const ApiKey* found = nullptr;
  for (const ApiKey& key : keys_) {
    if (EqualsInConstantTime(key.secret, secret)) found = &key;
  }
  return found;
}

std::string_view SecretOf(std::string_view authorization, std::string_view x_api_key) {
  constexpr std::string_view kBearer = "bearer ";
  const bool is_bearer =
      authorization.size() > kBearer.size() &&
      std::equal(kBearer.begin(), kBearer.end(), authorization.begin(),
                 [](char a, char b) { return a == std::tolower(static_cast<unsigned char>(b)); });
  if (!is_bearer) return x_api_key;
  authorization.remove_prefix(kBearer.size());
  authorization.remove_prefix(std::min(authorization.find_first_not_of(' '), authorization.size()));
  return authorization;
}

}  // namespace trellis
