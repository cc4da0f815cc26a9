// trellis bench --profile: where the time of a step goes, part by part, and how near each part
// comes to what the machine can do. The steps are the server's own: its loop, tree, sampler and
// model.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/json_text.h"
#include "engine/step_loop.h"
#include "kernels/kernels.h"
#include "model/step_profile.h"
#include "os/compute_pool.h"

namespace trellis {

// What the machine can do at most with one instruction set, on one thread and on the pool's.
struct Ceilings {
  struct Rate {
    double one = 0, all = 0;  // per second
    const char* how = "";
  };
  std::map<Arithmetic, Rate> arithmetic;  // multiply-adds, of what there is
  Rate read;                              // bytes of memory
};

// Raises `ceilings` to the best of a few rounds of each probe, under half a second each: who calls
// it more than once is less likely to meet a machine that others use. ERRORS: kResourceExhausted:
// no memory to read.
Status MeasureCeilings(const KernelTable& kernels, ComputePool& pool, Ceilings* ceilings);

// The fastest repetition, which other programs disturbed least, per prefill or per decoded token.
struct TestProfile {
  double wall = 0;  // seconds; what the parts' time, fork_join and idle and `other` sum to
  double fork_join = 0, idle = 0;  // of all parts
  double other = 0;                // serial code that is no part
  std::vector<StepProfile::Part> parts;
};

class Profiler {
 public:
  // For tests of up to `max_tokens`, depth included.
  // ERRORS: kResourceExhausted: no memory for their pages.
  static Result<std::unique_ptr<Profiler>> Create(Model& model, ComputePool& pool,
                                                  size_t max_tokens);
  ~Profiler();

  // `num_tokens` of a prompt behind `depth` tokens that the tree has, in as many steps as the
  // server would take.
  TestProfile Prefill(size_t depth, size_t num_tokens, size_t repetitions);
  // `num_tokens` tokens decoded at `depth`, one a step.
  TestProfile Decode(size_t depth, size_t num_tokens, size_t repetitions);

 private:
  struct Run {
    double wall = 0;
    std::vector<StepProfile::Part> parts;
  };
  Profiler(Model& model, ComputePool& pool, std::unique_ptr<PageCache> cache);
  std::vector<TokenId> Prompt(size_t depth, size_t num_new);
  Run Generate(std::vector<TokenId> prompt, size_t max_new_tokens);
  static TestProfile Fastest(std::vector<Run> runs, size_t steps);

  Model& model_;
  StepProfile profile_;
  std::unique_ptr<StepLoop> loop_;
  uint64_t next_id_ = 1;
};

void PrintCeilings(const Ceilings& ceilings, size_t threads);
void PrintProfile(const std::string& test, const TestProfile& profile, const Ceilings& ceilings);
OrderedJson ProfileJson(const TestProfile& profile, const Ceilings& ceilings);

}  // namespace trellis
