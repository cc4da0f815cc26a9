#include "replay/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <unordered_map>

#include "base/check.h"
#include "os/mapped_file.h"

namespace trellis {
namespace {

using Json = nlohmann::json;

// Ids of blocks in the order of their first use: of a block, whatever the file calls it, behind
// another.
class BlockNames {
 public:
  static constexpr uint32_t kNothing = std::numeric_limits<uint32_t>::max();

  uint32_t IdOf(uint32_t before, uint64_t name) {
    return ids_.try_emplace({before, name}, static_cast<uint32_t>(ids_.size())).first->second;
  }
  size_t size() const { return ids_.size(); }

 private:
  struct Key {
    uint32_t before;
    uint64_t name;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const {
      uint64_t x = (key.name + 1) * 0x9e3779b97f4a7c15u ^ key.before;
      x = (x ^ (x >> 32)) * 0xbf58476d1ce4e5b9u;
      return x ^ (x >> 29);
    }
  };
  std::unordered_map<Key, uint32_t, Hash> ids_;
};

Status Invalid(const std::string& where, std::string_view what) {
  return Status(StatusCode::kInvalidArgument, fmt::format("{}: {}", where, what));
}

// Appends a request of these blocks, if one of them is whole. Returns whether.
Result<bool> Append(const std::string& where, std::span<const uint64_t> names, size_t num_tokens,
                    TraceRequest request, BlockNames& ids, Trace& trace) {
  const size_t num_whole = num_tokens / trace.block_tokens;
  if (num_whole > names.size()) {
    return Invalid(where, fmt::format("{} tokens are {} blocks of {}, but {} have an id",
                                      num_tokens, num_whole, trace.block_tokens, names.size()));
  }
  if (num_whole == 0) return false;
  uint32_t before = BlockNames::kNothing;
  for (const uint64_t name : names.first(num_whole)) {
    before = ids.IdOf(before, name);
    request.blocks.push_back(before);
  }
  if (ids.size() > static_cast<size_t>(std::numeric_limits<TokenId>::max()))
    return Invalid(where, "there are more blocks than can be numbered");
  trace.requests.push_back(std::move(request));
  return true;
}

[[noreturn]] void Fail(const Json& json, const std::string& what) {
  throw Json::other_error::create(501, what, &json);
}

// Without the library's name and number for it.
std::string WhatIsWrong(const Json::exception& error) {
  const std::string_view what = error.what();
  const size_t end = what.find("] ");
  return std::string(end == what.npos ? what : what.substr(end + 2));
}

// Members of a file's objects. THROW Json::exception, naming the member, if it is not what it
// should be.
double NumberAt(const Json& json, const char* name) {
  const Json& value = json.at(name);
  if (!value.is_number()) Fail(json, fmt::format("{} is not a number", name));
  return value.get<double>();
}
size_t CountAt(const Json& json, const char* name, size_t most) {
  const double number = NumberAt(json, name);
  if (!(number >= 0 && number <= static_cast<double>(most)) || number != std::floor(number))
    Fail(json, fmt::format("{} is not a whole number from 0 to {}", name, most));
  return static_cast<size_t>(number);
}
std::vector<uint64_t> NamesAt(const Json& json, const char* name) {
  const Json& value = json.at(name);
  if (!value.is_array()) Fail(json, fmt::format("{} is not an array", name));
  std::vector<uint64_t> names;
  names.reserve(value.size());
  for (const Json& element : value) {
    if (!element.is_number_unsigned())
      Fail(json, fmt::format("{} has what is not a whole number from 0 up", name));
    names.push_back(element.get<uint64_t>());
  }
  return names;
}
constexpr size_t kMostTokens = size_t{1} << 31;  // of a prompt
constexpr size_t kMostBlockTokens = size_t{1} << 20;

// --- A folder of sessions ---

struct SessionRequest {
  double start = 0, end = 0;  // in seconds since the session began
  size_t num_tokens = 0;
  std::vector<uint64_t> names;
};

struct Session {
  std::string path;
  size_t block_tokens = 0, harness_tokens = 0;
  std::vector<SessionRequest> requests;
};

void AddRequest(const Json& json, double start, Session& session) {
  const double at = start + NumberAt(json, "t");
  SessionRequest request{.start = at,
                         .end = at + (json.contains("api_time") ? NumberAt(json, "api_time") : 0),
                         .num_tokens = CountAt(json, "in", kMostTokens),
                         .names = NamesAt(json, "hash_ids")};
  if (!request.names.empty()) session.requests.push_back(std::move(request));
}

void AddRequests(const Json& requests, Session& session) {
  for (const Json& json : requests) {
    if (!json.contains("requests")) {
      AddRequest(json, 0, session);
      continue;
    }
    for (const Json& of_agent : json.at("requests"))
      AddRequest(of_agent, NumberAt(json, "t"), session);
  }
}

Result<Session> ReadSession(const std::string& path) {
  TRELLIS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  try {
    const Json json = Json::parse(text, text + file.bytes().size());
    Session session{.path = path,
                    .block_tokens = CountAt(json, "block_size", kMostBlockTokens),
                    .harness_tokens = 0,
                    .requests = {}};
    if (session.block_tokens == 0) return Invalid(path, "block_size is 0");
    for (const char* name : {"tool_tokens", "system_tokens"})
      if (json.contains(name)) session.harness_tokens += CountAt(json, name, kMostTokens);
    AddRequests(json.at("requests"), session);
    std::stable_sort(session.requests.begin(), session.requests.end(),
                     [](const auto& a, const auto& b) { return a.start < b.start; });
    return session;
  } catch (const Json::exception& error) {
    return Invalid(path, WhatIsWrong(error));
  }
}

// Makes names unique to the session, but for those of a harness that all have in common: the first
// blocks of the prompts that begin as the session's first one does.
void Rename(size_t number, bool same_harness, Session& session) {
  const uint64_t own = (uint64_t{number} + 1) << 32;
  const size_t harness = session.harness_tokens / session.block_tokens;
  const uint64_t first = session.requests.empty() ? 0 : session.requests[0].names[0];
  for (SessionRequest& request : session.requests) {
    const bool has_harness = same_harness && request.names[0] == first;
    for (size_t i = 0; i < request.names.size(); i++)
      request.names[i] = has_harness && i < harness ? i : own | (request.names[i] & 0xffffffff);
  }
}

Result<Trace> ReadFolder(const std::string& path, const TraceOptions& options) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".json") files.push_back(it->path().string());
  }
  if (error) return Status(StatusCode::kIo, fmt::format("{}: {}", path, error.message()));
  if (files.empty()) return Invalid(path, "there is no *.json in this folder");
  std::sort(files.begin(), files.end());

  Trace trace{.name = path, .block_tokens = 1, .num_blocks = 0, .requests = {}};
  BlockNames ids;
  // When each of the sessions that run at once is over.
  std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
  for (size_t i = 0; i < std::max<size_t>(options.concurrency, 1); i++) free_at.push(0);
  for (size_t number = 0; number < files.size(); number++) {
    TRELLIS_ASSIGN_OR_RETURN(Session session, ReadSession(files[number]));
    if (number == 0) trace.block_tokens = session.block_tokens;
    if (session.block_tokens != trace.block_tokens)
      return Invalid(session.path, "its block_size differs from that of the other files");
    Rename(number, options.same_harness, session);
    const double start = free_at.top();
    double end = start;
    for (const SessionRequest& request : session.requests) {
      end = std::max(end, start + request.end);
      const auto added = Append(session.path, request.names, request.num_tokens,
                                {.seconds = start + request.start,
                                 .session = static_cast<uint32_t>(number),
                                 .blocks = {}},
                                ids, trace);
      if (!added.ok()) return added.status();
    }
    free_at.pop();
    free_at.push(end);
  }
  trace.num_blocks = ids.size();
  return trace;
}

// --- A file of requests ---

// One line. `sessions`: numbers of the names so far.
Status ReadLine(const std::string& where, const std::string& line,
                std::map<std::string, uint32_t>& sessions, BlockNames& ids, Trace& trace) {
  const Json json = Json::parse(line);
  if (!json.is_object()) return Invalid(where, "it is no JSON object");
  const bool has_tokens = json.contains("tokens");
  const size_t block_tokens = has_tokens ? 1
                              : json.contains("block_size")
                                  ? CountAt(json, "block_size", kMostBlockTokens)
                                  : size_t{512};
  if (block_tokens == 0) return Invalid(where, "block_size is 0");
  if (trace.requests.empty()) trace.block_tokens = block_tokens;
  if (block_tokens != trace.block_tokens)
    return Invalid(where, "its blocks are of another size than those before");
  const auto names = NamesAt(json, has_tokens ? "tokens" : "hash_ids");
  const auto num_tokens = has_tokens ? names.size() : CountAt(json, "input_length", kMostTokens);
  TRELLIS_ASSIGN_OR_RETURN(
      const bool added,
      Append(where, names, num_tokens,
             {.seconds = json.contains("timestamp") ? NumberAt(json, "timestamp") / 1000 : 0,
              .session = 0,
              .blocks = {}},
             ids, trace));
  if (!added) return Status::Ok();
  TraceRequest& request = trace.requests.back();
  if (json.contains("session") && !json.at("session").is_primitive())
    return Invalid(where, "session is no string or number");
  const std::string session =
      json.contains("session")
          ? json.at("session").dump()
          : fmt::format("#{}", request.blocks[request.blocks.size() > 1 ? 1 : 0]);
  request.session =
      sessions.try_emplace(session, static_cast<uint32_t>(sessions.size())).first->second;
  return Status::Ok();
}

Result<Trace> ReadLines(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Status(StatusCode::kNotFound, fmt::format("{}: cannot be opened", path));
  Trace trace{.name = path, .block_tokens = 1, .num_blocks = 0, .requests = {}};
  BlockNames ids;
  std::map<std::string, uint32_t> sessions;
  std::string line;
  for (size_t number = 1; std::getline(file, line); number++) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", path, number);
    try {
      TRELLIS_RETURN_IF_ERROR(ReadLine(where, line, sessions, ids, trace));
    } catch (const Json::exception& error) {
      return Invalid(where, WhatIsWrong(error));
    }
  }
  if (file.bad()) return Status(StatusCode::kIo, fmt::format("{}: cannot be read", path));
  trace.num_blocks = ids.size();
  return trace;
}

}  // namespace

Result<Trace> ReadTrace(const std::string& path, const TraceOptions& options) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  TRELLIS_ASSIGN_OR_RETURN(Trace trace, is_folder ? ReadFolder(path, options) : ReadLines(path));
  if (trace.requests.empty()) {
    return Invalid(path, trace.block_tokens == 1
                             ? "there is no request in it"
                             : fmt::format("there is no request in it that has a whole block, {} "
                                           "tokens",
                                           trace.block_tokens));
  }
  std::stable_sort(trace.requests.begin(), trace.requests.end(),
                   [](const auto& a, const auto& b) { return a.seconds < b.seconds; });
  return trace;
}

size_t Trace::TotalTokens() const {
  size_t total = 0;
  for (const TraceRequest& request : requests) total += NumTokens(request);
  return total;
}

size_t Trace::CommonTokens(const TraceRequest& a, const TraceRequest& b) const {
  // Ids that are alike are alike in all that comes before.
  size_t same = 0, most = std::min(a.blocks.size(), b.blocks.size());
  while (same < most) {
    const size_t middle = (same + most + 1) / 2;
    if (a.blocks[middle - 1] == b.blocks[middle - 1]) {
      same = middle;
    } else {
      most = middle - 1;
    }
  }
  return same * block_tokens;
}

void Trace::WriteTokens(const TraceRequest& request, std::vector<TokenId>& tokens) const {
  tokens.resize(NumTokens(request));
  for (size_t i = 0; i < request.blocks.size(); i++) {
    std::fill_n(tokens.begin() + static_cast<ptrdiff_t>(i * block_tokens), block_tokens,
                static_cast<TokenId>(request.blocks[i]));
  }
}

}  // namespace trellis
