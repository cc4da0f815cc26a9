#include "hub/http_client.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <exception>

namespace trellis {
namespace {

constexpr size_t kMaxBody = 32 << 20;
constexpr int kMaxRedirects = 10;

std::string Lower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) {
    text.remove_suffix(1);
  }
  return text;
}

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, FreeUrl>;

// Null if it is no URL.
Url ParseUrl(const std::string& text) {
  Url url(curl_url());
  if (url == nullptr || curl_url_set(url.get(), CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) {
    return nullptr;
  }
  return url;
}

std::string PartOf(const Url& url, CURLUPart part, unsigned flags) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, flags) != CURLUE_OK) return "";
  const std::string copy(text);
  curl_free(text);
  return copy;
}

}  // namespace

std::string OriginOf(const std::string& text) {
  const Url url = ParseUrl(text);
  if (url == nullptr) return "";
  const std::string scheme = Lower(PartOf(url, CURLUPART_SCHEME, 0));
  const std::string host = Lower(PartOf(url, CURLUPART_HOST, 0));
  if ((scheme != "http" && scheme != "https") || host.empty()) return "";
  return scheme + "://" + host + ":" + PartOf(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
}

std::string PercentEncoded(std::string_view path) {
  std::string encoded;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = byte < 128 && (std::isalnum(byte) != 0 ||
                                         std::string_view("-._~/").find(c) != std::string::npos);
    encoded += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return encoded;
}

std::string WithoutSecrets(const std::string& text) {
  const Url url = ParseUrl(text);
  if (url == nullptr) return text;
  for (const CURLUPart part : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY}) {
    curl_url_set(url.get(), part, nullptr, 0);
  }
  return PartOf(url, CURLUPART_URL, 0);
}

const std::string& HttpClient::Answer::header(const std::string& name) const {
  static const std::string kNone;
  const auto found = headers.find(name);
  return found == headers.end() ? kNone : found->second;
}

// One request and its answer, as curl's callbacks see them: no exception may pass through curl.
struct HttpClient::Transfer {
  const Request& request;
  Answer* answer;
  Status status = {};
  std::exception_ptr thrown = {};

  static size_t OnHeader(char* data, size_t size, size_t count, void* self) {
    Answer& answer = *static_cast<Transfer*>(self)->answer;
    const std::string_view line(data, size * count);
    if (line.starts_with("HTTP/")) {
      const size_t space = line.find(' ');
      answer.status = space == line.npos ? 0 : std::atoi(line.data() + space);
      std::erase_if(answer.headers,
                    [](const auto& header) { return !header.first.starts_with("x-"); });
    } else if (const size_t colon = line.find(':'); colon != line.npos) {
      answer.headers[Lower(line.substr(0, colon))] = Trimmed(line.substr(colon + 1));
    }
    return size * count;
  }

  static size_t OnBody(char* data, size_t size, size_t count, void* self) {
    auto& transfer = *static_cast<Transfer*>(self);
    try {
      transfer.status = transfer.Take({data, size * count});
    } catch (...) {
      transfer.thrown = std::current_exception();
      return CURL_WRITEFUNC_ERROR;
    }
    return transfer.status.ok() ? size * count : CURL_WRITEFUNC_ERROR;
  }

  static int OnProgress(void* self, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
    const Request& request = static_cast<Transfer*>(self)->request;
    return request.is_cancelled && request.is_cancelled() ? 1 : 0;
  }

  Status Take(std::string_view bytes) {
    if (answer->ok() && request.on_body) return request.on_body(*answer, bytes);
    if (answer->body.size() + bytes.size() > kMaxBody) {
      return Status(StatusCode::kTooLarge, fmt::format("{} answers with more than {} bytes",
                                                       WithoutSecrets(request.url), kMaxBody));
    }
    answer->body += bytes;
    return Status::Ok();
  }
};

HttpClient::HttpClient() : curl_(curl_easy_init(), curl_easy_cleanup) {
  TRELLIS_CHECK(curl_ != nullptr);
}

HttpClient::~HttpClient() = default;

Result<HttpClient::Answer> HttpClient::Send(const Request& request) {
  Request hop = request;
  const std::string origin = OriginOf(request.url);
  Answer answer;
  for (int redirects = 0;; redirects++) {
    if (OriginOf(hop.url).empty()) {
      return Status(StatusCode::kInvalidArgument,
                    fmt::format("'{}' is no URL that begins with http:// or https://",
                                WithoutSecrets(hop.url)));
    }
    const bool is_same = OriginOf(hop.url) == origin;
    TRELLIS_RETURN_IF_ERROR(SendOnce(hop, is_same ? request.token : "", &answer));
    answer.url = hop.url;
    if (!IsRedirect(answer.status)) return answer;
    if (request.is_answer && request.is_answer(answer.headers)) return answer;
    char* next = nullptr;
    curl_easy_getinfo(curl_.get(), CURLINFO_REDIRECT_URL, &next);
    if (next == nullptr) return answer;
    if (redirects == kMaxRedirects) {
      return Status(
          StatusCode::kUnavailable,
          fmt::format("{}: more than {} redirects", WithoutSecrets(request.url), kMaxRedirects));
    }
    if (hop.url.starts_with("https:") && !std::string_view(next).starts_with("https:")) {
      return Status(StatusCode::kUnavailable,
                    fmt::format("{} redirects from https to {}, which anybody on the way could "
                                "change",
                                WithoutSecrets(hop.url), WithoutSecrets(next)));
    }
    hop.url = next;
  }
}

Status HttpClient::SendOnce(const Request& request, const std::string& token, Answer* answer) {
  CURL* curl = curl_.get();
  curl_easy_reset(curl);
  answer->body.clear();
  Transfer transfer{.request = request, .answer = answer};
  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 30L);
  curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, "trellis");
  // The curl program reads this variable, its library does not.
  if (const char* file = std::getenv("SSL_CERT_FILE"); file != nullptr && *file != 0)
    curl_easy_setopt(curl, CURLOPT_CAINFO, file);
  if (request.longest_silence.count() > 0) {
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                     static_cast<long>(request.longest_silence.count()));
  }
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, &Transfer::OnHeader);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, &Transfer::OnBody);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, &Transfer::OnProgress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);
  std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(nullptr, curl_slist_free_all);
  if (request.method == Method::kHead) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
  if (request.method == Method::kPost) {
    headers.reset(curl_slist_append(nullptr, "Content-Type: application/json"));
    // Large bodies would wait a second for a "100 Continue" that few servers send.
    curl_slist_append(headers.get(), "Expect:");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE,
                     static_cast<curl_off_t>(request.json.size()));
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.json.data());
  }
  if (request.offset > 0) {
    curl_easy_setopt(curl, CURLOPT_RANGE, fmt::format("{}-", request.offset).c_str());
    if (!request.if_range.empty()) {
      headers.reset(
          curl_slist_append(headers.release(), ("If-Range: " + request.if_range).c_str()));
      curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());
    }
  }
  if (!token.empty()) {
    curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, token.c_str());
  }
  const CURLcode code = curl_easy_perform(curl);
  if (transfer.thrown) std::rethrow_exception(transfer.thrown);
  TRELLIS_RETURN_IF_ERROR(transfer.status);
  if (code == CURLE_OK) return Status::Ok();
  const std::string where = WithoutSecrets(request.url);
  if (code == CURLE_ABORTED_BY_CALLBACK) return Status(StatusCode::kCancelled, "interrupted");
  return Status(StatusCode::kUnavailable, fmt::format("{}: {}", where, curl_easy_strerror(code)));
}

}  // namespace trellis
