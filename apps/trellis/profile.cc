#include "profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "os/buffer.h"

namespace trellis {
namespace {

using Clock = StepProfile::Clock;
using Seconds = StepProfile::Seconds;

// The best rate of several rounds, each of which hands out `items` items of `amount`: short rounds,
// so that one of them is likely to have the machine to itself.
template <typename Work>
double BestRate(ComputePool* pool, size_t items, double amount, const Work& work) {
  constexpr size_t kRounds = 16;
  double best = 0;
  for (size_t round = 0; round < kRounds; round++) {
    const Clock::time_point start = Clock::now();
    if (pool != nullptr) {
      pool->ParallelFor(items, [&](size_t item, size_t) { work(round * items + item); });
    } else {
      for (size_t item = 0; item < items; item++) work(round * items + item);
    }
    const Seconds took = Clock::now() - start;
    best = std::max(best, static_cast<double>(items) * amount / took.count());
  }
  return best;
}

Ceilings::Rate MeasureArithmetic(const ArithmeticProbe& probe, ComputePool& pool) {
  // Items of some 0.1 ms, so that a thread that comes late does fewer.
  constexpr size_t kFewRounds = 2000, kItems = 50;
  const Clock::time_point start = Clock::now();
  probe.run(kFewRounds);
  const Seconds took = Clock::now() - start;
  const auto rounds = static_cast<size_t>(std::max(1.0, 1e-4 / took.count() * kFewRounds));
  const auto macs = static_cast<double>(rounds * probe.macs_per_round);
  const auto work = [&](size_t) { probe.run(rounds); };
  return {.one = BestRate(nullptr, kItems, macs, work),
          .all = BestRate(&pool, kItems * pool.num_threads(), macs, work),
          .how = probe.instructions};
}

Result<Ceilings::Rate> MeasureRead(ComputePool& pool) {
  // A round reads a quarter; the three others push it out of the caches before its turn comes
  // again.
  constexpr size_t kBytes = size_t{512} << 20, kItemBytes = size_t{1} << 20;
  constexpr size_t kItems = kBytes / kItemBytes;
  TRELLIS_ASSIGN_OR_RETURN(Buffer memory, Buffer::Allocate(kBytes));
  pool.ParallelFor(kItems, [&](size_t item, size_t) {
    std::memset(memory.data() + item * kItemBytes, 1, kItemBytes);
  });
  const auto work = [&](size_t item) {
    const uint64_t sum = ReadOnce(memory.data() + item % kItems * kItemBytes, kItemBytes);
    asm volatile("" : : "r"(sum));
  };
  return Ceilings::Rate{.one = BestRate(nullptr, kItems / 4, kItemBytes, work),
                        .all = BestRate(&pool, kItems / 4, kItemBytes, work),
                        .how = "front to back"};
}

class Sink : public GenerationSink {
 public:
  void OnToken(const SampledToken&) override {}
  void OnFinish(FinishReason, const Status&, const GenerateTimings&) override {}
};

// The ceiling that bounds a part, and the share of it that the part reached.
struct Bound {
  const char* name = "";
  double share = 0;
};

Bound BoundOf(const StepProfile::Part& part, const Ceilings& ceilings) {
  const double time = part.time.count();
  if (time <= 0) return {};
  const auto ceiling = ceilings.arithmetic.find(part.work.arithmetic);
  const Bound memory{"read", part.work.bytes / ceilings.read.all / time};
  if (ceiling == ceilings.arithmetic.end()) return memory;
  const Bound compute{ArithmeticName(ceiling->first), part.work.macs / ceiling->second.all / time};
  return compute.share > memory.share ? compute : memory;
}

std::string Cell(double value, const char* format = "{:.1f}") {
  return value > 0 ? fmt::format(fmt::runtime(format), value) : "";
}

}  // namespace

Status MeasureCeilings(const KernelTable& kernels, ComputePool& pool, Ceilings* ceilings) {
  const auto raise = [](Ceilings::Rate* best, const Ceilings::Rate& rate) {
    if (rate.all > best->all) best->all = rate.all, best->how = rate.how;
    best->one = std::max(best->one, rate.one);
  };
  for (const ArithmeticProbe& probe : AvailableProbes()) {
    if (std::strcmp(probe.isa, kernels.name) != 0) continue;
    raise(&ceilings->arithmetic[probe.arithmetic], MeasureArithmetic(probe, pool));
  }
  TRELLIS_ASSIGN_OR_RETURN(const Ceilings::Rate read, MeasureRead(pool));
  raise(&ceilings->read, read);
  return Status::Ok();
}

Profiler::Profiler(Model& model, ComputePool& pool, std::unique_ptr<PageCache> cache)
    : model_(model),
      loop_(std::make_unique<StepLoop>(
          model, std::move(cache),
          StepLoop::Options{.limits = {}, .pool = &pool, .profile = &profile_})) {
  model_.Report(&profile_);
}

Result<std::unique_ptr<Profiler>> Profiler::Create(Model& model, ComputePool& pool,
                                                   size_t max_tokens) {
  // A page more than the longest test for a copy of the page in which its own tokens begin.
  const size_t pages = PagesFor(max_tokens + 1) + 1;
  const PageLayout layout = model.page_layout();
  TRELLIS_ASSIGN_OR_RETURN(
      std::unique_ptr<PageCache> cache,
      PageCache::Create({.layout = layout, .capacity_bytes = pages * layout.page_bytes()}));
  return std::unique_ptr<Profiler>(new Profiler(model, pool, std::move(cache)));
}

Profiler::~Profiler() {
  model_.Report(nullptr);
}

// The same `depth` tokens every time, then new ones.
std::vector<TokenId> Profiler::Prompt(size_t depth, size_t num_new) {
  std::uniform_int_distribution<TokenId> token(0,
                                               static_cast<TokenId>(model_.spec().vocab_size) - 1);
  std::mt19937 shared(1), own(static_cast<uint32_t>(next_id_ + 1));
  std::vector<TokenId> tokens(depth + num_new);
  for (size_t i = 0; i < tokens.size(); i++) tokens[i] = token(i < depth ? shared : own);
  return tokens;
}

Profiler::Run Profiler::Generate(std::vector<TokenId> prompt, size_t max_new_tokens) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0;
  auto owned =
      std::make_unique<Request>(std::move(request), std::make_shared<Sink>(), max_new_tokens);
  owned->id = RequestId(next_id_++);
  profile_.Clear();
  const Clock::time_point start = Clock::now();
  loop_->Add(std::move(owned));
  while (!loop_->idle()) {
    loop_->Prepare();
    loop_->Run();
    loop_->Deliver();
  }
  const Seconds wall = Clock::now() - start;
  return {.wall = wall.count(), .parts = profile_.parts()};
}

TestProfile Profiler::Prefill(size_t depth, size_t num_tokens, size_t repetitions) {
  if (depth > 0) Generate(Prompt(depth, 0), 1);
  Generate(Prompt(depth, num_tokens), 1);  // warm-up
  std::vector<Run> runs;
  for (size_t i = 0; i < repetitions; i++) runs.push_back(Generate(Prompt(depth, num_tokens), 1));
  return Fastest(std::move(runs), 1);
}

TestProfile Profiler::Decode(size_t depth, size_t num_tokens, size_t repetitions) {
  if (depth > 0) Generate(Prompt(depth, 0), 1);
  std::vector<Run> runs;
  for (size_t i = 0; i <= repetitions; i++) {
    // The first step feeds the prompt's last token, the others what was sampled.
    Run run = Generate(Prompt(depth, 1), num_tokens);
    if (i > 0) runs.push_back(std::move(run));  // the first one warms up
  }
  return Fastest(std::move(runs), num_tokens);
}

TestProfile Profiler::Fastest(std::vector<Run> runs, size_t steps) {
  const auto fastest = std::min_element(runs.begin(), runs.end(),
                                        [](const Run& a, const Run& b) { return a.wall < b.wall; });
  const auto n = static_cast<double>(steps);
  TestProfile profile{.wall = fastest->wall / n, .parts = std::move(fastest->parts)};
  profile.other = profile.wall;
  for (StepProfile::Part& part : profile.parts) {
    part.calls = static_cast<size_t>(std::lround(static_cast<double>(part.calls) / n));
    part.work.macs /= n, part.work.bytes /= n;
    part.time /= n, part.fork_join /= n, part.idle /= n;
    profile.fork_join += part.fork_join.count();
    profile.idle += part.idle.count();
    profile.other -= (part.time + part.fork_join + part.idle).count();
  }
  return profile;
}

void PrintCeilings(const Ceilings& ceilings, size_t threads) {
  fmt::print("\nCeilings, one thread and {}:", threads);
  for (const auto& [arithmetic, rate] : ceilings.arithmetic) {
    fmt::print(" {} {:.0f} and {:.0f} GMAC/s ({}),", ArithmeticName(arithmetic), rate.one / 1e9,
               rate.all / 1e9, rate.how);
  }
  fmt::print(" read {:.1f} and {:.1f} GB/s\n", ceilings.read.one / 1e9, ceilings.read.all / 1e9);
}

void PrintProfile(const std::string& test, const TestProfile& profile, const Ceilings& ceilings) {
  fmt::print("\n{}: {:.3f} ms\n\n", test, profile.wall * 1e3);
  fmt::print(
      "| part | calls | ms | % | GMAC/s | GB/s | of ceiling |\n| --- | --: | --: | --: | --: | --: "
      "| --: |\n");
  const auto line = [&](const std::string& name, const std::string& calls, double seconds,
                        const std::string& rest) {
    fmt::print("| {} | {} | {:.3f} | {:.1f} | {} |\n", name, calls, seconds * 1e3,
               seconds / profile.wall * 100, rest);
  };
  for (const StepProfile::Part& part : profile.parts) {
    const double time = part.time.count();
    const Bound bound = BoundOf(part, ceilings);
    const std::string share =
        bound.share > 0 ? fmt::format("{:.0f} % {}", bound.share * 100, bound.name) : "";
    line(part.name, std::to_string(part.calls), time,
         fmt::format("{} | {} | {}", Cell(part.work.macs / time / 1e9),
                     Cell(part.work.bytes / time / 1e9), share));
  }
  line("fork-join", "", profile.fork_join, " | |");
  line("idle: others still work", "", profile.idle, " | |");
  line("other", "", profile.other, " | |");
}

OrderedJson ProfileJson(const TestProfile& profile, const Ceilings& ceilings) {
  OrderedJson parts = OrderedJson::array();
  for (const StepProfile::Part& part : profile.parts) {
    const Bound bound = BoundOf(part, ceilings);
    parts.push_back({{"name", part.name},
                     {"calls", part.calls},
                     {"ms", part.time.count() * 1e3},
                     {"fork_join_ms", part.fork_join.count() * 1e3},
                     {"idle_ms", part.idle.count() * 1e3},
                     {"macs", part.work.macs},
                     {"bytes", part.work.bytes},
                     {"ceiling", bound.name},
                     {"of_ceiling", bound.share}});
  }
  OrderedJson limits;
  for (const auto& [arithmetic, rate] : ceilings.arithmetic) {
    limits[ArithmeticName(arithmetic)] = {{"one", rate.one}, {"all", rate.all}};
  }
  limits["read"] = {{"one", ceilings.read.one}, {"all", ceilings.read.all}};
  return {{"ms", profile.wall * 1e3},
          {"fork_join_ms", profile.fork_join * 1e3},
          {"idle_ms", profile.idle * 1e3},
          {"other_ms", profile.other * 1e3},
          {"parts", parts},
          {"ceilings", limits}};
}

}  // namespace trellis
