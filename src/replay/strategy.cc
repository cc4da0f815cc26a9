#include "replay/strategy.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <list>
#include <optional>
#include <unordered_map>

#include "base/check.h"
#include "kv/page_cache.h"

namespace trellis {
namespace {

class Nothing : public CacheStrategy {
 public:
  size_t Serve(size_t, std::span<const TokenId>) override { return 0; }
  size_t held_tokens() const override { return 0; }
};

// One or more PageCaches, whose pages have hardly any bytes.
class Radix : public CacheStrategy {
 public:
  // ERRORS: those of PageCache::Create.
  static Result<std::unique_ptr<CacheStrategy>> Create(const Trace& trace, size_t capacity,
                                                       EvictionPolicyKind eviction,
                                                       size_t num_shards) {
    constexpr PageLayout kLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 1};
    auto radix = std::make_unique<Radix>(trace);
    // More than all there is changes nothing.
    const size_t pages = std::min(capacity / num_shards / kPageTokens,
                                  trace.UniqueTokens() / kPageTokens + trace.requests.size() + 1);
    for (size_t i = 0; i < num_shards && pages > 0; i++) {
      TRELLIS_ASSIGN_OR_RETURN(auto cache,
                               PageCache::Create({.layout = kLayout,
                                                  .capacity_bytes = pages * kLayout.page_bytes(),
                                                  .eviction = eviction}));
      radix->caches_.push_back(std::move(cache));
    }
    return std::unique_ptr<CacheStrategy>(std::move(radix));
  }
  explicit Radix(const Trace& trace) : trace_(trace) {}

  size_t Serve(size_t index, std::span<const TokenId> tokens) override {
    if (caches_.empty()) return 0;
    PageCache& cache = *caches_[trace_.requests[index].session % caches_.size()];
    Lease lease = cache.Acquire("", tokens);
    const size_t hits = lease.num_matched();
    // A prompt that is longer than the cache is computed without it.
    if (cache.Reserve(lease, tokens.size()).ok()) cache.Commit(lease, tokens.subspan(hits));
    return hits;
  }

  size_t held_tokens() const override {
    size_t pages = 0;
    for (const auto& cache : caches_) pages += cache->Stats().committed;
    return pages * kPageTokens;
  }
  size_t overhead_bytes() const override {
    size_t bytes = 0;
    for (const auto& cache : caches_)
      bytes += cache->Stats().tree_bytes + cache->Stats().ghost_bytes;
    return bytes;
  }

 private:
  const Trace& trace_;
  std::vector<std::unique_ptr<PageCache>> caches_;
};

// Whole sequences, the one used longest ago first.
class Sequences : public CacheStrategy {
 public:
  Sequences(const Trace& trace, size_t capacity) : trace_(trace), capacity_(capacity) {}
  size_t held_tokens() const override { return held_; }

 protected:
  using Kept = std::list<const TraceRequest*>::iterator;

  // The one with most in common with `request`.
  std::pair<Kept, size_t> Longest(const TraceRequest& request) {
    std::pair<Kept, size_t> longest{kept_.end(), 0};
    for (auto it = kept_.begin(); it != kept_.end(); ++it) {
      const size_t common = trace_.CommonTokens(**it, request);
      if (common > longest.second) longest = {it, common};
    }
    return longest;
  }
  void Drop(Kept it) {
    held_ -= trace_.NumTokens(**it);
    kept_.erase(it);
  }
  void Keep(const TraceRequest& request) {
    if (trace_.NumTokens(request) > capacity_) return;
    held_ += trace_.NumTokens(request);
    kept_.push_back(&request);
    while (held_ > capacity_) Drop(kept_.begin());
  }

  const Trace& trace_;
  const size_t capacity_;
  size_t held_ = 0;
  std::list<const TraceRequest*> kept_;
};

class Slots : public Sequences {
 public:
  Slots(const Trace& trace, size_t capacity, size_t num_slots)
      : Sequences(trace, capacity), num_slots_(num_slots) {}

  size_t Serve(size_t index, std::span<const TokenId>) override {
    const TraceRequest& request = trace_.requests[index];
    auto [slot, common] = Longest(request);
    if (common * 10 < trace_.NumTokens(request)) {
      slot = kept_.size() < num_slots_ ? kept_.end() : kept_.begin();
      common = slot == kept_.end() ? 0 : trace_.CommonTokens(**slot, request);
    }
    if (slot != kept_.end()) Drop(slot);
    Keep(request);
    return common;
  }

 private:
  const size_t num_slots_;
};

class Copies : public Sequences {
 public:
  using Sequences::Sequences;

  size_t Serve(size_t index, std::span<const TokenId>) override {
    const TraceRequest& request = trace_.requests[index];
    const auto [copy, common] = Longest(request);
    if (copy != kept_.end() && common == trace_.NumTokens(**copy)) {
      Drop(copy);
    } else if (copy != kept_.end() && common * 4 >= trace_.NumTokens(**copy)) {
      kept_.splice(kept_.end(), kept_, copy);
    }
    Keep(request);
    return common;
  }
};

class HashedBlocks : public CacheStrategy {
 public:
  HashedBlocks(const Trace& trace, size_t capacity, size_t size)
      : trace_(trace), capacity_(capacity / size), size_(size) {}

  size_t Serve(size_t index, std::span<const TokenId>) override {
    const TraceRequest& request = trace_.requests[index];
    const size_t num_whole = trace_.NumTokens(request) / size_;
    size_t num_found = 0;
    while (num_found < num_whole && blocks_.contains(NameOf(request, num_found))) num_found++;
    for (size_t i = std::min(num_whole, capacity_); i-- > 0;) Touch(NameOf(request, i));
    while (order_.size() > capacity_) {
      blocks_.erase(order_.front());
      order_.pop_front();
    }
    return num_found * size_;
  }

  size_t held_tokens() const override { return order_.size() * size_; }

 private:
  using Name = uint64_t;
  // Block i is named by where it ends: that says all that comes before.
  Name NameOf(const TraceRequest& request, size_t i) const {
    const size_t last = (i + 1) * size_ - 1;
    return Name{request.blocks[last / trace_.block_tokens]} << 32 | last % trace_.block_tokens;
  }
  void Touch(Name name) {
    const auto [it, is_new] = blocks_.try_emplace(name);
    if (is_new) {
      it->second = order_.insert(order_.end(), name);
    } else {
      order_.splice(order_.end(), order_, it->second);
    }
  }

  const Trace& trace_;
  const size_t capacity_, size_;  // blocks; tokens of one
  std::list<Name> order_;         // the one used longest ago first
  std::unordered_map<Name, std::list<Name>::iterator> blocks_;
};

// The N of "prefix-N", up to a million.
std::optional<size_t> NumberAfter(std::string_view prefix, std::string_view name) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  size_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number == 0 || number > 1'000'000)
    return std::nullopt;
  return number;
}

}  // namespace

const std::vector<std::string>& StrategyNames() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all = {"none",      "slots-4",   "slots-8",    "copies",
                                    "blocks-16", "blocks-64", "blocks-256", "blocks-512",
                                    "shards-4",  "compressed"};
    for (const EvictionPolicyKind kind : kEvictionPolicies) {
      if (kind == EvictionPolicyKind::kPriority) continue;  // traces have none: it would be LRU
      all.push_back(fmt::format("radix-{}", EvictionPolicyName(kind)));
    }
    all.push_back("optimum");
    return all;
  }();
  return names;
}

Result<std::unique_ptr<CacheStrategy>> MakeStrategy(const std::string& name, const Trace& trace,
                                                    size_t capacity) {
  using Made = std::unique_ptr<CacheStrategy>;
  if (name == "none") return Made(std::make_unique<Nothing>());
  if (name == "copies") return Made(std::make_unique<Copies>(trace, capacity));
  if (name == "optimum") return MakeOptimum(trace, capacity);
  if (name == "compressed") return Radix::Create(trace, 2 * capacity, EvictionPolicyKind::kLru, 1);
  if (const auto n = NumberAfter("slots-", name))
    return Made(std::make_unique<Slots>(trace, capacity, *n));
  if (const auto n = NumberAfter("blocks-", name))
    return Made(std::make_unique<HashedBlocks>(trace, capacity, *n));
  if (const auto n = NumberAfter("shards-", name))
    return Radix::Create(trace, capacity, EvictionPolicyKind::kLru, *n);
  if (name.starts_with("radix-")) {
    if (const auto kind = FindEvictionPolicy(std::string_view(name).substr(6)))
      return Radix::Create(trace, capacity, *kind, 1);
  }
  return Status(StatusCode::kInvalidArgument, fmt::format("there is no strategy {}; there are {}",
                                                          name, fmt::join(StrategyNames(), ", ")));
}

}  // namespace trellis
