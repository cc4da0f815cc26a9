// RopeTable: cosines and sines of every position's rotation, computed once, the same whoever asks.
#pragma once

#include <cstddef>
#include <vector>

#include "model/transformer_config.h"

namespace trellis {

class RopeTable {
 public:
  RopeTable(const RopeConfig& config, size_t rope_dim);

  // Makes rows [0, num_positions) available. COST: amortised O(1) per new position.
  void Extend(size_t num_positions);

  // [rope_dim / 2] f32 each. REQUIRES: position < what Extend() was given; valid until the next
  // Extend().
  const float* cos(size_t position) const { return cos_.data() + position * frequencies_.size(); }
  const float* sin(size_t position) const { return sin_.data() + position * frequencies_.size(); }

 private:
  std::vector<double> frequencies_;  // [rope_dim / 2] radians per position
  double magnitude_;
  std::vector<float> cos_, sin_;  // [positions, rope_dim / 2]
};

}  // namespace trellis
