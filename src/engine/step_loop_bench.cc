// What requests that wait cost those that run: one step of a prefill in chunks of 32 rows, with
// `waiting` others that are
//   0 unrelated, and there is no place in the batch
//   1 about to join the prefill
//   2 unrelated, and there is no memory for the first of them
#include <benchmark/benchmark.h>

#include "engine/step_loop.h"
#include "engine/test_support.h"

namespace trellis {
namespace {

void BM_StepWithWaiting(benchmark::State& state) {
  constexpr size_t kChunk = 32, kSteps = 500, kPages = kSteps + 100;
  const auto num_waiting = static_cast<size_t>(state.range(0));
  const bool joins = state.range(1) == 1, blocked = state.range(1) == 2;
  FakeModel model(kPages * kPageTokens);
  const Tokens trunk = MakeTokens((kPages - 1) * kPageTokens, 1);
  StepLoop loop(model, MakeCache(model, kPages),
                {.limits = {.step_tokens = kChunk,
                            .mixed_step_tokens = kChunk,
                            .max_running = joins || blocked ? size_t{64} : size_t{1}}});
  const auto sink = std::make_shared<RecordingSink>();
  const auto add = [&](uint64_t id, Tokens prompt) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    auto owned = std::make_unique<Request>(std::move(request), sink, 100);
    owned->id = RequestId(id);
    loop.Add(std::move(owned));
  };
  add(1, trunk);
  for (size_t i = 0; i < num_waiting; i++) {
    const Tokens own = MakeTokens(100, i + 2);
    add(i + 2, joins ? Concat(Tokens(trunk.begin(), trunk.end() - 100), own)
                     : Concat({static_cast<TokenId>(1 + i % 100)}, own));
  }
  for (auto _ : state) {
    loop.Prepare();
    loop.Run();
    loop.Deliver();
  }
  TRELLIS_CHECK(loop.Stats().waiting == num_waiting);
}
BENCHMARK(BM_StepWithWaiting)
    ->ArgNames({"waiting", "why"})
    ->ArgsProduct({{0, 1000}, {0, 1, 2}})
    ->Iterations(500)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace trellis
