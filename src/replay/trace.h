// Trace: the prompts of many sessions in the order in which a server got them, without their text.
//
// A prompt is a list of whole blocks of block_tokens tokens. A block's id names it together with
// all blocks before it: two prompts have as many blocks in common as their lists begin with. What
// is behind the last whole block is left out: its id, if it has one, is another as soon as the
// prompt goes on, so that a trace cannot say whether it was found. Answers are not in a trace
// either: they count as far as they come back in a later prompt.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "base/types.h"

namespace trellis {

struct TraceRequest {
  double seconds = 0;  // when it arrives
  uint32_t session = 0;
  std::vector<uint32_t> blocks;  // at least one; ids below Trace::num_blocks
};

struct Trace {
  std::string name;
  size_t block_tokens = 1;
  size_t num_blocks = 0;
  std::vector<TraceRequest> requests;  // by time

  size_t NumTokens(const TraceRequest& request) const {
    return request.blocks.size() * block_tokens;
  }
  size_t TotalTokens() const;
  // The working set: what a cache without a limit would hold in the end.
  size_t UniqueTokens() const { return num_blocks * block_tokens; }
  // Tokens that `a` and `b` begin with alike.
  size_t CommonTokens(const TraceRequest& a, const TraceRequest& b) const;
  // The prompt as token ids that are alike where the prompts are.
  void WriteTokens(const TraceRequest& request, std::vector<TokenId>& tokens) const;
};

struct TraceOptions {
  // Of a folder of sessions: how many run at once, the next one when one ends; and whether their
  // tools and system prompts, whose texts a trace does not have, are one and the same text.
  size_t concurrency = 8;
  bool same_harness = true;
};

// `path` is one of
//   a folder    of coding-agent sessions, one *.json each, as github.com/callanjfox/kv-cache-tester
//               has them: "block_size", "tool_tokens", "system_tokens", "requests": [{"t": seconds,
//               "in": tokens, "api_time": seconds, "hash_ids": [one for each whole block]}]; a
//               request with "requests" is a sub-agent, whose times are from its own start
//   a file      of one request a line, by time, as github.com/kvcache-ai/Mooncake has them:
//               {"timestamp": ms, "input_length": tokens, "hash_ids": [one for each block]}, with
//               optional "block_size" (512) and "session" (else whoever has the second block in
//               common is one); or with "tokens": [ids] instead of the other two
// Requests without a whole block are skipped.
// ERRORS: kNotFound, kIo; kInvalidArgument naming the file, the line and what is wrong there.
Result<Trace> ReadTrace(const std::string& path, const TraceOptions& options);

}  // namespace trellis
