#include <algorithm>
#include <cstdint>
#include <limits>
#include <queue>
#include <tuple>

#include "replay/strategy.h"

namespace trellis {
namespace {

constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();

// Tokens that are always asked for together are one item with a weight, of which a part can be
// kept: the runs of the tree of all prompts between its branches and ends.
class Optimum : public CacheStrategy {
 public:
  Optimum(const Trace& trace, size_t capacity) : capacity_(capacity) {
    FindRuns(trace);
    FindNextUses(trace);
  }

  size_t Serve(size_t index, std::span<const TokenId>) override {
    size_t hits = 0;
    for (size_t i = path_begin_[index]; i < path_begin_[index + 1]; i++) {
      Run& run = runs_[path_[i]];
      hits += run.kept;
      held_ += run.weight - run.kept;
      run.kept = run.weight;
      run.next_use = next_use_[i];
      victims_.push({run.next_use, run.depth, path_[i]});
    }
    while (held_ > capacity_) {
      const auto [next_use, depth, number] = victims_.top();
      victims_.pop();
      Run& run = runs_[number];
      if (run.next_use != next_use || run.kept == 0) continue;  // an older entry
      const size_t dropped = std::min(run.kept, held_ - capacity_);
      run.kept -= dropped;
      held_ -= dropped;
      if (run.kept > 0) victims_.push({next_use, depth, number});
    }
    return hits;
  }

  size_t held_tokens() const override { return held_; }

 private:
  struct Run {
    size_t weight = 0;  // tokens
    size_t depth = 0;   // blocks before it
    size_t kept = 0;
    uint32_t next_use = kNone;  // index of a request
  };

  // A block begins a run if it is not the only one behind the block before it, or if some prompt
  // ends with that.
  void FindRuns(const Trace& trace) {
    std::vector<uint32_t> only_child(trace.num_blocks, kNone);
    std::vector<bool> ends(trace.num_blocks);
    for (const TraceRequest& request : trace.requests) {
      const auto& blocks = request.blocks;
      for (size_t i = 1; i < blocks.size(); i++) {
        uint32_t& child = only_child[blocks[i - 1]];
        if (child != kNone && child != blocks[i]) ends[blocks[i - 1]] = true;
        child = blocks[i];
      }
      ends[blocks.back()] = true;
    }
    std::vector<uint32_t> run_of(trace.num_blocks, kNone);
    path_begin_.push_back(0);
    for (const TraceRequest& request : trace.requests) {
      const auto& blocks = request.blocks;
      for (size_t i = 0; i < blocks.size(); i++) {
        uint32_t& run = run_of[blocks[i]];
        if (run == kNone) {
          const bool begins = i == 0 || ends[blocks[i - 1]];
          if (begins) runs_.push_back({.depth = i});
          run = begins ? static_cast<uint32_t>(runs_.size() - 1) : run_of[blocks[i - 1]];
          runs_[run].weight += trace.block_tokens;
        }
        if (path_.size() == path_begin_.back() || path_.back() != run) path_.push_back(run);
      }
      path_begin_.push_back(path_.size());
    }
  }

  void FindNextUses(const Trace& trace) {
    std::vector<uint32_t> next(runs_.size(), kNone);
    next_use_.resize(path_.size());
    for (size_t request = trace.requests.size(); request-- > 0;) {
      for (size_t i = path_begin_[request]; i < path_begin_[request + 1]; i++) {
        next_use_[i] = next[path_[i]];
        next[path_[i]] = static_cast<uint32_t>(request);
      }
    }
  }

  const size_t capacity_;
  size_t held_ = 0;
  std::vector<Run> runs_;
  std::vector<uint32_t> path_;      // runs of all requests, one after the other
  std::vector<size_t> path_begin_;  // [requests + 1], into path_
  std::vector<uint32_t> next_use_;  // of the run at the same place in path_
  // Needed last, and of those the deepest, on top. Entries whose run was used since are stale.
  std::priority_queue<std::tuple<uint32_t, size_t, uint32_t>> victims_;
};

}  // namespace

std::unique_ptr<CacheStrategy> MakeOptimum(const Trace& trace, size_t capacity) {
  return std::make_unique<Optimum>(trace, capacity);
}

}  // namespace trellis
