#include "hub/hub.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

namespace trellis {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string TokenFile() {
  if (const std::string path = Environment("HF_TOKEN_PATH"); !path.empty()) return path;
  if (const std::string home = Environment("HF_HOME"); !home.empty()) return home + "/token";
  if (const std::string cache = Environment("XDG_CACHE_HOME"); !cache.empty()) {
    return cache + "/huggingface/token";
  }
  const std::string home = Environment("HOME");
  return home.empty() ? "" : home + "/.cache/huggingface/token";
}

std::string WithoutSlash(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  return url;
}

// Appends the paths of the files in a page of the tree. ERRORS: kDataLoss.
Status ReadPage(const HttpClient::Answer& answer, std::vector<std::string>* paths) {
  const auto json = nlohmann::json::parse(answer.body, nullptr, false);
  const auto is_entry = [](const nlohmann::json& entry) {
    return entry.is_object() && entry.contains("path") && entry["path"].is_string();
  };
  if (!json.is_array() || !std::all_of(json.begin(), json.end(), is_entry)) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{} answers something else than a list of files: is that a hub of "
                              "models (--hub)?",
                              WithoutSecrets(answer.url)));
  }
  for (const auto& entry : json) {
    if (entry.value("type", nlohmann::json("file")) == "file") {
      paths->push_back(entry["path"].get<std::string>());
    }
  }
  return Status::Ok();
}

}  // namespace

std::string HubTokenFromEnvironment() {
  std::string token = Environment("HF_TOKEN");
  if (token.empty()) {
    std::ifstream file(TokenFile());
    token.assign(std::istreambuf_iterator<char>(file), {});
  }
  // It becomes part of a header.
  token.erase(std::remove_if(token.begin(), token.end(), [](unsigned char c) { return c <= 32; }),
              token.end());
  return token;
}

std::string NextPage(const std::string& link_header) {
  for (size_t at = link_header.find('<'); at != std::string::npos;
       at = link_header.find('<', at + 1)) {
    const size_t end = link_header.find('>', at);
    if (end == std::string::npos) break;
    const std::string parameters = link_header.substr(end, link_header.find('<', end) - end);
    if (parameters.find("rel=\"next\"") != std::string::npos) {
      return link_header.substr(at + 1, end - at - 1);
    }
  }
  return "";
}

Hub::Hub(HttpClient& client, std::string url, std::string token)
    : client_(client), url_(WithoutSlash(std::move(url))), token_(std::move(token)) {}

Result<std::vector<std::string>> Hub::ListFiles(const std::string& repo, const Patience& patience) {
  constexpr int kMaxPages = 1000;
  std::vector<std::string> paths;
  std::string url = fmt::format("{}/api/models/{}/tree/main?recursive=true", url_, repo);
  for (int page = 0; !url.empty() && page < kMaxPages; page++) {
    const bool is_own = OriginOf(url) == OriginOf(url_);
    TRELLIS_ASSIGN_OR_RETURN(const HttpClient::Answer answer, SendPatiently(client_, patience, [&] {
                               return HttpClient::Request{
                                   .url = url,
                                   .token = is_own ? token_ : "",
                                   .longest_silence = std::chrono::seconds(60),
                                   .is_cancelled = patience.is_cancelled};
                             }));
    if (!answer.ok()) return ErrorOf(answer);
    TRELLIS_RETURN_IF_ERROR(ReadPage(answer, &paths));
    url = NextPage(answer.header("link"));
  }
  return paths;
}

std::string Hub::UrlOf(const std::string& repo, const std::string& path) const {
  return fmt::format("{}/{}/resolve/main/{}", url_, repo, PercentEncoded(path));
}

}  // namespace trellis
