// Hub: a server of model files that speaks the Hugging Face hub's protocol.
#pragma once

#include <string>
#include <vector>

#include "hub/http_client.h"
#include "hub/patience.h"

namespace trellis {

inline constexpr const char* kDefaultHub = "https://huggingface.co";

// The token that Hugging Face's own tools would send: $HF_TOKEN, else what the file
// $HF_TOKEN_PATH, $HF_HOME/token or ~/.cache/huggingface/token holds; empty if there is none.
std::string HubTokenFromEnvironment();

class Hub {
 public:
  // `url`: "https://host" with or without a path. `token`, if not empty, goes to its host alone.
  Hub(HttpClient& client, std::string url, std::string token);

  // Paths of all files of the repository "user/repo", in the order of the hub.
  // ERRORS: those of SendPatiently and ErrorOf; kDataLoss: it answers something else.
  Result<std::vector<std::string>> ListFiles(const std::string& repo, const Patience& patience);

  // Where the file can be had; it may redirect.
  std::string UrlOf(const std::string& repo, const std::string& path) const;

  const std::string& token() const { return token_; }

 private:
  HttpClient& client_;
  const std::string url_;
  const std::string token_;
};

// The URL of the next page in a "Link" header; empty if there is none.
std::string NextPage(const std::string& link_header);

}  // namespace trellis
