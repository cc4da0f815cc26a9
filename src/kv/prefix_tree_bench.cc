// What looking a prompt up costs: matching it, and acquiring and releasing a lease on the match.
//
//   tokens     length of the prompt, all of which is resident
//   edge       a branch leaves its path every so many tokens (0: none), so the path has
//              tokens / edge nodes
//   sessions   such prompts in the tree, looked up in turn
//   cold       whether the processor's caches have forgotten the tree
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "base/check.h"
#include "kv/page_cache.h"

namespace trellis {
namespace {

using Tokens = std::vector<TokenId>;

// As small as a page can be: looking up reads none of it.
constexpr PageLayout kLayout{.num_layers = 1, .num_kv_heads = 1, .head_dim = 1};

Tokens MakePrompt(size_t num_tokens, size_t session) {
  Tokens tokens(num_tokens);
  uint64_t x = session;
  for (TokenId& token : tokens) {
    x = x * 6364136223846793005u + 1442695040888963407u;
    token = static_cast<TokenId>((x >> 33) % 50000);
  }
  return tokens;
}

std::unique_ptr<PageCache> MakeCache(size_t num_pages) {
  auto cache =
      PageCache::Create({.layout = kLayout, .capacity_bytes = num_pages * kLayout.page_bytes()});
  TRELLIS_CHECK(cache.ok());
  return std::move(cache).value();
}

void Insert(PageCache& cache, const Tokens& tokens) {
  Lease lease = cache.Acquire("", tokens);
  TRELLIS_CHECK(cache.Reserve(lease, tokens.size()).ok());
  cache.Commit(lease, std::span(tokens).subspan(lease.num_rows()));
}

struct Forest {
  Forest(size_t num_sessions, size_t num_tokens, size_t edge) {
    const size_t num_branches = edge == 0 ? 0 : num_tokens / edge;
    cache = MakeCache(num_sessions * (PagesFor(num_tokens) + num_branches) + 1);
    for (size_t i = 0; i < num_sessions; i++) {
      prompts.push_back(MakePrompt(num_tokens, i));
      Insert(*cache, prompts.back());
      Tokens branch;
      for (size_t end = edge; num_branches > 0 && end < num_tokens; end += edge) {
        branch.assign(prompts[i].begin(), prompts[i].begin() + static_cast<ptrdiff_t>(end));
        branch.push_back(-1);
        Insert(*cache, branch);
      }
    }
    TRELLIS_CHECK(cache->Stats().pages_evicted == 0);
  }
  const Tokens& Next() { return prompts[next_++ % prompts.size()]; }

  std::unique_ptr<PageCache> cache;
  std::vector<Tokens> prompts;

 private:
  size_t next_ = 0;
};

void ForgetAll() {
  static std::vector<uint64_t> much(size_t{64} << 17);  // 64 MiB
  for (uint64_t& x : much) x++;
  benchmark::ClobberMemory();
}

// `look_up` returns how many tokens of a prompt it found in a cache.
template <typename LookUp>
void Measure(benchmark::State& state, const LookUp& look_up) {
  const auto num_tokens = static_cast<size_t>(state.range(0));
  Forest forest(static_cast<size_t>(state.range(2)), num_tokens,
                static_cast<size_t>(state.range(1)));
  for (auto _ : state) {
    if (state.range(3) != 0) {
      state.PauseTiming();
      ForgetAll();
      state.ResumeTiming();
    }
    TRELLIS_CHECK(look_up(*forest.cache, forest.Next()) == num_tokens);
  }
  state.counters["nodes"] = static_cast<double>(forest.cache->Stats().num_nodes);
}

void BM_Match(benchmark::State& state) {
  Measure(state, [](const PageCache& cache, const Tokens& tokens) {
    return cache.MatchLength("", tokens);
  });
}

void BM_AcquireAndRelease(benchmark::State& state) {
  Measure(state, [](PageCache& cache, const Tokens& tokens) {
    return cache.Acquire("", tokens).num_matched();
  });
}

void Shapes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"tokens", "edge", "sessions", "cold"})->Unit(benchmark::kMicrosecond);
  for (int64_t tokens : {1 << 10, 1 << 14, 1 << 17}) benchmark->Args({tokens, 0, 1, 0});
  for (int64_t edge : {1024, 128, 32}) benchmark->Args({1 << 17, edge, 1, 0});
  for (int64_t edge : {0, 32}) benchmark->Args({1 << 17, edge, 1, 1});
  for (int64_t sessions : {10, 1000}) benchmark->Args({1 << 12, 128, sessions, 0});
}
BENCHMARK(BM_Match)->Apply(Shapes);
BENCHMARK(BM_AcquireAndRelease)->Apply(Shapes);

// A match that ends inside a node of `tokens` tokens, in its middle: the node is cut, and joined
// again when the lease goes.
void BM_AcquireAndReleaseInsideANode(benchmark::State& state) {
  const auto num_tokens = static_cast<size_t>(state.range(0));
  Forest forest(1, num_tokens, 0);
  Tokens half = forest.Next();
  half.resize(num_tokens / 2 + 5);
  for (auto _ : state) {
    const Lease lease = forest.cache->Acquire("", half);
    TRELLIS_CHECK(lease.num_matched() == half.size());
  }
}
BENCHMARK(BM_AcquireAndReleaseInsideANode)
    ->ArgNames({"tokens"})
    ->Arg(1 << 10)
    ->Arg(1 << 17)
    ->Unit(benchmark::kMicrosecond);

// Branches of one trunk of 4096 tokens, 32 tokens each: as fast as if there was only one.
void BM_AcquireAndReleaseAmongSiblings(benchmark::State& state) {
  const auto num_siblings = static_cast<size_t>(state.range(0));
  const auto cache = MakeCache(128 + num_siblings);
  std::vector<Tokens> prompts(num_siblings, MakePrompt(4096, 0));
  for (size_t i = 0; i < num_siblings; i++) {
    prompts[i].push_back(static_cast<TokenId>(i));
    prompts[i].resize(4096 + 32, 7);
    Insert(*cache, prompts[i]);
  }
  size_t next = 0;
  for (auto _ : state) {
    const Lease lease = cache->Acquire("", prompts[next++ % num_siblings]);
    TRELLIS_CHECK(lease.num_matched() == 4096 + 32);
  }
}
BENCHMARK(BM_AcquireAndReleaseAmongSiblings)
    ->ArgNames({"siblings"})
    ->RangeMultiplier(100)
    ->Range(1, 10000)
    ->Unit(benchmark::kMicrosecond);

// What a decoding request pays for each token: reserve, commit one row.
void BM_AppendOneToken(benchmark::State& state) {
  const auto cache = MakeCache(4096);
  const Tokens tokens = MakePrompt(4096 * kPageTokens, 0);
  Lease lease = cache->Acquire("", {});
  for (auto _ : state) {
    if (lease.num_rows() == tokens.size()) {
      state.PauseTiming();
      lease = Lease();
      cache->Reset();
      lease = cache->Acquire("", {});
      state.ResumeTiming();
    }
    TRELLIS_CHECK(cache->Reserve(lease, lease.num_rows() + 1).ok());
    cache->Commit(lease, std::span(tokens).subspan(lease.num_rows(), 1));
  }
}
BENCHMARK(BM_AppendOneToken);

// A page for somebody new where all is taken: evict, reserve, commit.
void BM_AppendOnePageByEvicting(benchmark::State& state) {
  const auto cache = MakeCache(4096);
  std::vector<TokenId> page(kPageTokens, 0);
  TokenId next = 0;
  for (auto _ : state) {
    page[0] = next++;
    Insert(*cache, page);
  }
}
BENCHMARK(BM_AppendOnePageByEvicting);

// What the engine's thread does for GET /v1/cache/tree: so many of 63,000 nodes, while 64 leases
// pin paths of 64 of them.
void BM_View(benchmark::State& state) {
  Forest forest(1000, 4096, 128);
  std::vector<Lease> leases;
  for (int i = 0; i < 64; i++) leases.push_back(forest.cache->Acquire("", forest.Next()));
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        forest.cache->View({.max_nodes = static_cast<size_t>(state.range(0))}));
  }
}
BENCHMARK(BM_View)->ArgNames({"nodes"})->Arg(200)->Arg(5000)->Unit(benchmark::kMicrosecond);

// Everything the tree does for one small request where every page is taken: match some 2,048 tokens
// of a session, insert 24 of its own behind them and then 8 that come out one by one, evict the
// page for them. All sessions go on from one place, then all from the one before it: so no page of
// a session is ever among the coldest, and the tree keeps its shape, 63 nodes a session.
void BM_RequestWhereAllIsTaken(benchmark::State& state) {
  constexpr size_t kSession = 4096, kEdge = 128, kPlaces = kSession / kEdge - 1, kOwn = 24,
                   kOut = 8;
  const auto num_sessions = static_cast<size_t>(state.range(0));
  Forest forest(num_sessions, kSession, kEdge);
  PageCache& cache = *forest.cache;
  size_t next = 0;
  const auto serve = [&](const Tokens& tokens) {
    Lease lease = cache.Acquire("", std::span(tokens).first(tokens.size() - kOut));
    TRELLIS_CHECK(lease.num_matched() == tokens.size() - kOwn - kOut);
    for (size_t end = tokens.size() - kOut; end <= tokens.size(); end++) {
      TRELLIS_CHECK(cache.Reserve(lease, end).ok());
      cache.Commit(lease, std::span(tokens).subspan(lease.num_rows(), end - lease.num_rows()));
    }
  };
  Tokens request;
  const auto prepare = [&] {
    const Tokens& session = forest.Next();
    const size_t place = kPlaces - next / num_sessions % kPlaces;
    request.assign(session.begin(), session.begin() + static_cast<ptrdiff_t>(place * kEdge));
    request.resize(request.size() + kOwn + kOut, static_cast<TokenId>(50000 + next++));
  };
  // Once from each place: now the coldest pages are such requests' too.
  for (size_t i = 0; i < num_sessions * kPlaces; i++) {
    prepare();
    serve(request);
  }
  const uint64_t evicted_before = cache.Stats().pages_evicted;
  for (auto _ : state) {
    state.PauseTiming();
    prepare();
    state.ResumeTiming();
    serve(request);
  }
  const PageCacheStats stats = cache.Stats();
  state.counters["nodes"] = static_cast<double>(stats.num_nodes);
  state.counters["evicted"] =
      benchmark::Counter(static_cast<double>(stats.pages_evicted - evicted_before),
                         benchmark::Counter::kAvgIterations);
}
BENCHMARK(BM_RequestWhereAllIsTaken)
    ->ArgNames({"sessions"})
    ->Arg(16)
    ->Arg(160)
    ->Arg(1600)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace trellis
