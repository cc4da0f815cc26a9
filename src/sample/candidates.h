// Candidates: the logits of one row while the sampling stages narrow them, built for vocabularies
// of 150,000 tokens and more.
//
// Every stage but typical keeps the most likely n for some n, so it is a Cut, an element in the
// order "higher key first, of equals the lower id", and nothing is ever sorted as a whole:
//
//   top_k    the k-th largest maximum of a block is a lower bound for the k-th key; what reaches it
//            is little more than k
//   top_p    a histogram of weights over key finds the bucket in which the sum is reached; only
//            this bucket is put in order
//
// Dropped elements become -inf in place, and when few are left they move together, still in the
// order of id. The passes over everything are loops over whole blocks that compilers vectorise, in
// one fixed order of operations: the same bits on every x86-64.
//
// Internal to sample/. Not shared by threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "base/types.h"

namespace trellis {

inline constexpr float kBanned = -std::numeric_limits<float>::infinity();

class Candidates {
 public:
  // All tokens, by id. NaN counts as -inf, +inf as the largest float.
  void Load(std::span<const float> logits);
  // Of token `id`. REQUIRES: nothing was kept yet.
  float& logit(TokenId id) { return keys_[static_cast<size_t>(id)]; }

  float MaxLogit() const;
  // log of the sum of exp(logit); -inf if all are banned.
  double LogSumExp();
  // The most likely of all; of equals the lowest id, also if all are banned.
  TokenId Best() const;
  // The n most likely, in order; fewer if there are not so many.
  std::vector<TokenId> Top(size_t n) const;
  // What is left, by id; banned ones are not.
  std::vector<TokenId> Tokens() const;

  void KeepTopK(size_t k);
  // The fewest of the most likely whose probabilities reach p.
  void KeepTopP(float p);
  // Those with at least min_p times the probability of the best.
  void KeepMinP(float min_p);
  // Locally typical sampling (Meister et al. 2022): the fewest whose surprise is nearest to the
  // entropy and whose probabilities exceed p.
  void KeepTypical(float p);

  // The token at `uniform` (in [0, 1)) of the cumulative distribution, by id, of the softmax of
  // logit / temperature. REQUIRES: temperature > 0.
  TokenId Draw(double uniform, float temperature);

 private:
  // The last element that is kept.
  struct Cut {
    float key = kBanned;
    size_t index = std::numeric_limits<size_t>::max();
  };

  size_t num_blocks() const;
  TokenId IdOf(size_t index) const;
  void Pad();
  // weights_ = exp((logit - max) / temperature); their sum.
  double Weigh(float max, float temperature);
  // The elements whose key may be among the n largest, in no order.
  std::vector<size_t> CollectTop(const std::vector<float>& keys, size_t n) const;
  Cut CutByWeight(const std::vector<float>& keys, double target, float least);
  void Apply(const std::vector<float>& keys, const Cut& cut);
  void MoveTogether(const std::vector<size_t>& live_blocks);

  size_t size_ = 0;                // elements; the vectors go on to whole blocks
  std::vector<float> keys_;        // logits
  std::vector<TokenId> ids_;       // empty: element i is token i
  std::vector<float> weights_;     // scratch
  std::vector<float> distance_;    // scratch of KeepTypical
  std::vector<double> sums_;       // scratch: of the weights of each block
  std::vector<uint16_t> buckets_;  // scratch of CutByWeight
};

}  // namespace trellis
