#include "comparison.h"

#include <algorithm>
#include <cmath>

namespace trellis {
namespace {

double LogSumExp(const float* logits, size_t n, float max) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += std::exp(double{logits[i]} - double{max});
  return double{max} + std::log(sum);
}

// NaN counts as the largest: no limit is above it.
void KeepLargest(double value, double* largest) {
  if (!std::isnan(*largest) && !(value <= *largest)) *largest = value;
}

}  // namespace

RowDistance Distance(const float* truth, const float* other, size_t vocab_size) {
  const float* truth_top = std::max_element(truth, truth + vocab_size);
  const float* other_top = std::max_element(other, other + vocab_size);
  const double truth_sum = LogSumExp(truth, vocab_size, *truth_top);
  const double other_sum = LogSumExp(other, vocab_size, *other_top);
  RowDistance row;
  row.same_top = truth_top - truth == other_top - other;
  for (size_t i = 0; i < vocab_size; i++) {
    const double log_p = double{truth[i]} - truth_sum, log_q = double{other[i]} - other_sum;
    row.kl += std::exp(log_p) * (log_p - log_q);
    KeepLargest(std::abs(double{truth[i]} - double{other[i]}), &row.max_difference);
  }
  return row;
}

void Divergence::Add(const RowDistance& row) {
  num_rows++;
  total_kl += row.kl;
  KeepLargest(row.kl, &max_kl);
  KeepLargest(row.max_difference, &max_difference);
  if (!row.same_top) disagreements++;
}

size_t MaxDisagreements(const Divergence& reference) {
  // One is added so that a reference without any still leaves room for a tie broken otherwise.
  const double n = static_cast<double>(reference.num_rows);
  const double rate = static_cast<double>(reference.disagreements + 1) / (n + 1);
  return reference.disagreements +
         static_cast<size_t>(std::ceil(3 * std::sqrt(2 * n * rate * (1 - rate))));
}

}  // namespace trellis
