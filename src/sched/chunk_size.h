// ChunkSize: how many rows a step may have in which somebody decodes, so that it takes about as
// long as the target says. Fed with what steps took, it follows the machine, the model, the depth
// of the prompts and whatever else runs there, with no model of any of them.
//
// A step over the target shrinks the next one in proportion, at most to a half; one that was as
// large as allowed and took less lets it grow, by at most a quarter: what costs a reader a pause is
// corrected at once, what costs throughput only over a few steps. Until a mixed step was seen, the
// rows per second of prompts alone say where to begin.
//
// THREADS: none of its own. Time is given, never read.
#pragma once

#include <chrono>
#include <cstddef>

namespace trellis {

class ChunkSize {
 public:
  using Seconds = std::chrono::duration<double>;
  struct Options {
    size_t first = 128;  // rows, before anything is known
    size_t least = 1;
    size_t most = 512;
    Seconds target{0};  // 0: always `first`
  };
  explicit ChunkSize(const Options& options);

  // Rows of a mixed step, decoding ones included.
  size_t rows() const { return static_cast<size_t>(rows_); }

  struct Step {
    size_t num_decoding = 0;  // rows
    size_t num_prompt = 0;    // rows
    Seconds took{0};
  };
  void Observe(const Step& step);

 private:
  double Target() const;
  void Set(double rows);

  const Options options_;
  double rows_;
  double decode_seconds_ = 0;  // of steps without a prompt, lately; 0: there was none
  enum class Known { kNothing, kPrompts, kMixed } known_ = Known::kNothing;
};

}  // namespace trellis
