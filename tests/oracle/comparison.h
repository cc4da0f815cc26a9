// How far logits are from the true ones: what the oracle tests measure.
#pragma once

#include <cstddef>

namespace trellis {

// At one position, between distributions p = softmax(truth) and q = softmax(other).
struct RowDistance {
  double kl = 0;  // sum of p * (log p - log q), in nats
  bool same_top = false;
  double max_difference = 0;  // of logits
};
RowDistance Distance(const float* truth, const float* other, size_t vocab_size);

// Over many positions.
struct Divergence {
  size_t num_rows = 0;
  double total_kl = 0, max_kl = 0;
  size_t disagreements = 0;  // positions where another token is the most likely one
  double max_difference = 0;

  void Add(const RowDistance& row);
  double mean_kl() const { return total_kl / static_cast<double>(num_rows); }
  double agreement() const {
    return 1 - static_cast<double>(disagreements) / static_cast<double>(num_rows);
  }
};

// More disagreements than this, and it is not chance: what `reference` has, plus three standard
// deviations of the difference between two counts of equally good implementations.
size_t MaxDisagreements(const Divergence& reference);

}  // namespace trellis
