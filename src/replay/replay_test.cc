#include "replay/replay.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <set>

#include "kv/eviction_policy.h"
#include "replay/strategy.h"

namespace trellis {
namespace {

class ReplayTest : public testing::Test {
 protected:
  ReplayTest() : folder_(testing::TempDir() + "trellis_replay_" + std::to_string(::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~ReplayTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }
  const std::string folder_;
};

// Prompts as token lists; a session each.
Trace MakeTrace(const std::vector<std::vector<TokenId>>& prompts) {
  Trace trace{.name = "made", .block_tokens = 1, .num_blocks = 0, .requests = {}};
  std::map<std::vector<TokenId>, uint32_t> ids;
  for (const auto& prompt : prompts) {
    TraceRequest request{.session = static_cast<uint32_t>(trace.requests.size()), .blocks = {}};
    std::vector<TokenId> before;
    for (const TokenId token : prompt) {
      before.push_back(token);
      request.blocks.push_back(
          ids.try_emplace(before, static_cast<uint32_t>(ids.size())).first->second);
    }
    trace.requests.push_back(std::move(request));
  }
  trace.num_blocks = ids.size();
  return trace;
}

// Prompts that extend or branch off earlier ones, at most `longest` tokens.
Trace RandomTrace(unsigned seed, size_t num_requests, size_t longest) {
  std::mt19937 random(seed);
  std::vector<std::vector<TokenId>> prompts;
  for (size_t i = 0; i < num_requests; i++) {
    std::vector<TokenId> prompt;
    if (!prompts.empty() && random() % 8 != 0) {
      prompt = prompts[random() % prompts.size()];
      prompt.resize(random() % prompt.size() + 1);
    }
    const size_t more = random() % (longest / 2) + 1;
    for (size_t j = 0; j < more && prompt.size() < longest; j++)
      prompt.push_back(static_cast<TokenId>(random() % 3));
    prompts.push_back(prompt);
  }
  return MakeTrace(prompts);
}

size_t Hits(const Trace& trace, const std::string& strategy, size_t budget) {
  const auto result = Replay(trace, strategy, budget);
  EXPECT_TRUE(result.ok()) << result.status().message();
  return result->hit_tokens;
}

// --- Reading ---

TEST_F(ReplayTest, ReadsAFileOfRequests) {
  const std::string path = Write(
      "trace.jsonl",
      "{\"timestamp\": 2000, \"input_length\": 700, \"output_length\": 5, \"hash_ids\": [7, 8]}\n"
      "\n"
      "{\"timestamp\": 1500, \"input_length\": 511, \"hash_ids\": [7]}\n"
      "{\"timestamp\": 1000, \"input_length\": 512, \"hash_ids\": [7]}\n");
  const auto trace = ReadTrace(path, {});
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  ASSERT_EQ(trace->requests.size(), 2u);
  EXPECT_EQ(trace->requests[0].seconds, 1.0) << "by time";
  EXPECT_EQ(trace->TotalTokens(), 1024u) << "whole blocks";
  EXPECT_EQ(trace->UniqueTokens(), 512u);
  EXPECT_EQ(trace->CommonTokens(trace->requests[0], trace->requests[1]), 512u);
}

TEST_F(ReplayTest, ReadsPromptsAsTokens) {
  const std::string path = Write("trace.jsonl",
                                 "{\"session\": \"a\", \"tokens\": [1, 2, 3]}\n"
                                 "{\"session\": \"b\", \"tokens\": [1, 2, 4, 3]}\n"
                                 "{\"session\": \"a\", \"tokens\": [1, 2, 3, 3]}\n");
  const auto trace = ReadTrace(path, {});
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  EXPECT_EQ(trace->UniqueTokens(), 6u);
  EXPECT_EQ(trace->CommonTokens(trace->requests[0], trace->requests[1]), 2u);
  EXPECT_EQ(trace->CommonTokens(trace->requests[0], trace->requests[2]), 3u);
  EXPECT_EQ(trace->requests[0].session, trace->requests[2].session);
  EXPECT_NE(trace->requests[0].session, trace->requests[1].session);
  std::vector<TokenId> a, b;
  trace->WriteTokens(trace->requests[0], a);
  trace->WriteTokens(trace->requests[1], b);
  EXPECT_EQ(a[1], b[1]);
  EXPECT_NE(a[2], b[2]);
  EXPECT_NE(a[2], b[3]) << "the same word behind others is another token";
}

TEST_F(ReplayTest, ReadsAFolderOfSessions) {
  const std::string session =
      "{\"block_size\": 64, \"tool_tokens\": 64, \"system_tokens\": 70, \"requests\": ["
      "{\"t\": 0, \"in\": 200, \"api_time\": 2, \"hash_ids\": [1, 2, 3]},"
      "{\"t\": 5, \"type\": \"subagent\", \"requests\": "
      "[{\"t\": 1, \"in\": 64, \"api_time\": 1, \"hash_ids\": [9]}]},"
      "{\"t\": 10, \"in\": 260, \"api_time\": 2, \"hash_ids\": [1, 2, 3, 4]}]}";
  Write("a.json", session);
  Write("b.json", session);
  Write("c.json", session);
  const auto trace = ReadTrace(folder_, {.concurrency = 2, .same_harness = true});
  ASSERT_TRUE(trace.ok()) << trace.status().message();
  ASSERT_EQ(trace->requests.size(), 9u);
  EXPECT_EQ(trace->TotalTokens(), 3u * (192 + 64 + 256)) << "whole blocks only";
  EXPECT_EQ(trace->UniqueTokens(), 64u * (2 + 3 * 3));
  std::vector<double> times;
  for (const TraceRequest& request : trace->requests) times.push_back(request.seconds);
  EXPECT_EQ(times, (std::vector<double>{0, 0, 6, 6, 10, 10, 12, 18, 22}))
      << "the third begins when the first is over";
  const auto own = ReadTrace(folder_, {.concurrency = 2, .same_harness = false});
  EXPECT_EQ(own->UniqueTokens(), 64u * 3 * 5);
}

TEST_F(ReplayTest, SaysWhatIsWrongAndWhere) {
  const auto error = [&](const std::string& text) {
    const auto trace = ReadTrace(Write("bad.jsonl", text), {});
    EXPECT_FALSE(trace.ok());
    return trace.ok() ? "" : trace.status().message();
  };
  EXPECT_NE(error("{\"tokens\": [1]}\n{\"tokens\": 1}\n").find("bad.jsonl:2"), std::string::npos);
  EXPECT_NE(error("nonsense").find("bad.jsonl:1"), std::string::npos);
  EXPECT_NE(error("{\"tokens\": []}").find("no request"), std::string::npos);
  EXPECT_NE(error("{\"input_length\": 1024, \"hash_ids\": [1]}").find("2 blocks"),
            std::string::npos);
  EXPECT_NE(error("{\"input_length\": 9, \"block_size\": 0, \"hash_ids\": [1]}").find("size"),
            std::string::npos);
  EXPECT_NE(error("[1]").find("object"), std::string::npos);
  EXPECT_NE(error("{\"tokens\": [1.5]}").find("whole number"), std::string::npos);
  EXPECT_NE(error("{\"tokens\": [-1]}").find("whole number"), std::string::npos);
  EXPECT_NE(error("{\"timestamp\": \"x\", \"tokens\": [1]}").find("timestamp"), std::string::npos);
  EXPECT_NE(error("").find("no request"), std::string::npos);
  for (const char* length : {"-1", "1e300", "\"9\"", "null", "99999999999999999999"}) {
    const std::string line = fmt::format("{{\"input_length\": {}, \"hash_ids\": [1]}}", length);
    EXPECT_NE(error(line).find("input_length"), std::string::npos) << length;
  }
  EXPECT_NE(error("{\"input_length\": 9, \"block_size\": 20000000000, \"hash_ids\": [1]}")
                .find("block_size"),
            std::string::npos);
  EXPECT_NE(error("{\"session\": [[]], \"tokens\": [1]}").find("session"), std::string::npos);
  std::string deep = "{\"session\": ";
  deep.append(200'000, '[').append(200'000, ']');
  EXPECT_NE(error(deep + ", \"tokens\": [1]}").find("session"), std::string::npos);
  EXPECT_EQ(ReadTrace(folder_ + "/none.jsonl", {}).status().code(), StatusCode::kNotFound);
  const auto no_sessions = ReadTrace(folder_, {});
  EXPECT_NE(no_sessions.status().message().find("no *.json"), std::string::npos);
}

// --- The optimum ---

// By trying every choice of what to keep after each prompt, for a handful of tokens.
size_t BestOfAll(const Trace& trace, size_t budget) {
  std::map<std::set<uint32_t>, size_t> best = {{{}, 0}};  // what is kept: most hits until then
  for (const TraceRequest& request : trace.requests) {
    std::map<std::set<uint32_t>, size_t> next;
    for (const auto& [kept, hits] : best) {
      size_t found = 0;
      for (const uint32_t block : request.blocks) found += kept.contains(block);
      std::set<uint32_t> all = kept;
      all.insert(request.blocks.begin(), request.blocks.end());
      const std::vector<uint32_t> items(all.begin(), all.end());
      for (uint64_t choice = 0; choice < uint64_t{1} << items.size(); choice++) {
        if (static_cast<size_t>(__builtin_popcountll(choice)) > budget) continue;
        std::set<uint32_t> chosen;
        for (size_t i = 0; i < items.size(); i++)
          if ((choice >> i & 1) != 0) chosen.insert(items[i]);
        size_t& most = next[chosen];
        most = std::max(most, hits + found);
      }
    }
    best = std::move(next);
  }
  size_t most = 0;
  for (const auto& [kept, hits] : best) most = std::max(most, hits);
  return most;
}

TEST_F(ReplayTest, TheOptimumIsTheBestOfAllChoices) {
  int num_tried = 0;
  for (unsigned seed = 0; seed < 60; seed++) {
    const Trace trace = RandomTrace(seed, 6, 4);
    if (trace.num_blocks > 9) continue;
    num_tried++;
    for (size_t budget = 1; budget <= 4; budget++) {
      EXPECT_EQ(Hits(trace, "optimum", budget), BestOfAll(trace, budget)) << seed << " " << budget;
    }
  }
  EXPECT_GT(num_tried, 30);
}

TEST_F(ReplayTest, NothingBeatsTheOptimum) {
  for (unsigned seed = 0; seed < 20; seed++) {
    const Trace trace = RandomTrace(seed, 300, 600);
    for (const double share : {0.1, 0.3, 1.0}) {
      const auto budget = static_cast<size_t>(share * static_cast<double>(trace.UniqueTokens()));
      const size_t optimum = Hits(trace, "optimum", budget);
      for (const std::string& name : StrategyNames()) {
        if (name == "compressed") continue;  // another size of token
        EXPECT_LE(Hits(trace, name, budget), optimum) << name << " " << seed << " " << share;
      }
    }
  }
}

// --- Strategies ---

TEST_F(ReplayTest, WithRoomForAllTheTreeFindsWhatThereIs) {
  const Trace trace = RandomTrace(1, 300, 600);
  size_t all = 0, computed_again = 0;
  for (size_t i = 0; i < trace.requests.size(); i++) {
    size_t most = 0;
    for (size_t j = 0; j < i; j++)
      most = std::max(most, trace.CommonTokens(trace.requests[i], trace.requests[j]));
    computed_again += most == trace.NumTokens(trace.requests[i]);
    all += most;
  }
  const size_t room = 100 * trace.UniqueTokens();
  EXPECT_EQ(Hits(trace, "optimum", room), all);
  EXPECT_GT(computed_again, 0u);
  all -= computed_again;
  for (const EvictionPolicyKind kind : kEvictionPolicies)
    EXPECT_EQ(Hits(trace, "radix-" + std::string(EvictionPolicyName(kind)), room), all);
  EXPECT_EQ(Hits(trace, "copies", room), all);
  EXPECT_EQ(Hits(trace, "blocks-1", room), all);
  EXPECT_EQ(Hits(trace, "none", room), 0u);
  EXPECT_LT(Hits(trace, "blocks-64", room), all);
}

std::vector<TokenId> Repeated(size_t n, TokenId token, std::vector<TokenId> head = {}) {
  head.resize(head.size() + n, token);
  return head;
}

TEST_F(ReplayTest, SlotsForgetWhatTheirSequenceLeaves) {
  const auto trunk = Repeated(64, 1);
  const auto a = Repeated(64, 2, trunk), b = Repeated(64, 3, trunk);
  const Trace trace = MakeTrace({a, b, a});
  EXPECT_EQ(Hits(trace, "slots-4", 10'000), 64u + 64u) << "b took the slot of a";
  EXPECT_EQ(Hits(trace, "copies", 10'000), 64u + 127u);
  EXPECT_EQ(Hits(trace, "radix-lru", 10'000), 64u + 127u);
}

TEST_F(ReplayTest, CopiesHoldATrunkOncePerSequence) {
  const auto trunk = Repeated(640, 1);
  std::vector<std::vector<TokenId>> prompts;
  for (TokenId i = 0; i < 8; i++) prompts.push_back(Repeated(32, 10 + i, trunk));
  const Trace trace = MakeTrace(prompts);
  EXPECT_EQ(Replay(trace, "copies", 100'000)->peak_tokens, 8u * 672);
  EXPECT_EQ(Replay(trace, "radix-lru", 100'000)->peak_tokens, 640u + 8 * 32);
}

TEST_F(ReplayTest, BlocksOfAHashFindWholeBlocksOnly) {
  const Trace trace = MakeTrace({Repeated(100, 1), Repeated(5, 2, Repeated(90, 1))});
  EXPECT_EQ(Hits(trace, "blocks-64", 1000), 64u);
  EXPECT_EQ(Hits(trace, "blocks-16", 1000), 80u);
  EXPECT_EQ(Hits(trace, "radix-lru", 1000), 90u);
}

TEST_F(ReplayTest, APromptLongerThanTheCacheIsServedWithoutIt) {
  const Trace trace = MakeTrace({Repeated(500, 1), Repeated(32, 2), Repeated(32, 2)});
  for (const std::string& name : StrategyNames()) {
    if (name == "optimum" || name == "none" || name.starts_with("blocks")) continue;
    EXPECT_EQ(Hits(trace, name, 160), name == "shards-4" ? 0u : 31u) << name;
  }
}

TEST_F(ReplayTest, AnUnknownStrategyIsRefused) {
  const Trace trace = MakeTrace({{1}});
  for (const char* name : {"radix-fifo", "slots-", "slots-0", "blocks-x", "lru", ""})
    EXPECT_EQ(Replay(trace, name, 100).status().code(), StatusCode::kInvalidArgument) << name;
}

}  // namespace
}  // namespace trellis
