#include "sample/candidates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace trellis {
namespace {

constexpr size_t kBlock = 256;
constexpr size_t kLanes = 16;

size_t BlocksFor(size_t n) {
  return (n + kBlock - 1) / kBlock;
}

// --- Loops over one block, for the compiler to vectorise ---
// The wider code has no fused multiply-add, so both give the same bits.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TRELLIS_VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define TRELLIS_VECTORISED
#endif

TRELLIS_VECTORISED float MaxOfBlock(const float* x) {
  float lanes[kLanes];
  for (size_t j = 0; j < kLanes; j++) lanes[j] = x[j];
  for (size_t i = kLanes; i < kBlock; i += kLanes) {
    for (size_t j = 0; j < kLanes; j++) lanes[j] = lanes[j] < x[i + j] ? x[i + j] : lanes[j];
  }
  float max = lanes[0];
  for (float lane : lanes) max = max < lane ? lane : max;
  return max;
}

TRELLIS_VECTORISED double SumOfBlock(const float* x) {
  float lanes[kLanes] = {};
  for (size_t i = 0; i < kBlock; i += kLanes) {
    for (size_t j = 0; j < kLanes; j++) lanes[j] += x[i + j];
  }
  double sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

// exp(x) for x <= 0, to 2e-7; 0 below -87. As Cephes' expf: x = n ln 2 + r, a polynomial in r, and
// n into the exponent.
inline float Exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer in the low bits
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = clamped - n * 0.693359375f - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const uint32_t bits = (std::bit_cast<uint32_t>(shifted) << 23) + std::bit_cast<uint32_t>(p);
  return x < -87.0f ? 0.0f : std::bit_cast<float>(bits);
}

// weights = exp((keys - max) * scale)
TRELLIS_VECTORISED void WeighBlock(const float* __restrict keys, float max, float scale,
                                   float* __restrict weights) {
  for (size_t i = 0; i < kBlock; i++) {
    const float x = (keys[i] - max) * scale;
    weights[i] = Exp(x < 0.0f ? x : 0.0f);
  }
}

// Buckets of 1/64 below the highest key; the last one holds all the rest.
constexpr size_t kBuckets = 2048;
TRELLIS_VECTORISED void SortIntoBuckets(const float* __restrict keys, float top,
                                        uint16_t* __restrict buckets) {
  for (size_t i = 0; i < kBlock; i++) {
    const float below = (top - keys[i]) * 64.0f;
    const float last = kBuckets - 1.0f;
    buckets[i] = static_cast<uint16_t>(static_cast<int32_t>(below < last ? below : last));
  }
}

TRELLIS_VECTORISED bool HasBucket(const uint16_t* buckets, uint16_t wanted) {
  uint16_t found = 0;
  for (size_t i = 0; i < kBlock; i++) found |= buckets[i] == wanted ? 1 : 0;
  return found != 0;
}

// Bans what comes after the cut: elements below `key`, and of those that equal it all but the first
// `num_ties` of the block. Returns how many are left.
TRELLIS_VECTORISED size_t CutBlock(const float* __restrict order, float key, int32_t num_ties,
                                   float* __restrict keys) {
  int32_t left = 0;
  for (int32_t i = 0; i < static_cast<int32_t>(kBlock); i++) {
    const int32_t above = order[i] > key ? 1 : 0;
    const int32_t tie = order[i] == key ? 1 : 0;
    const int32_t keep = above | (tie & (i < num_ties ? 1 : 0));
    keys[i] = keep != 0 ? keys[i] : kBanned;
    left += keep;
  }
  return static_cast<size_t>(left);
}

TRELLIS_VECTORISED void LoadBlock(const float* __restrict logits, float* __restrict keys) {
  for (size_t i = 0; i < kBlock; i++) {
    const float number = logits[i] == logits[i] ? logits[i] : kBanned;
    keys[i] =
        number < std::numeric_limits<float>::max() ? number : std::numeric_limits<float>::max();
  }
}

// "Higher key first, of equals the lower id" by index, which is in the order of id.
struct KeyOrder {
  const std::vector<float>& keys;
  bool operator()(size_t a, size_t b) const {
    return keys[a] != keys[b] ? keys[a] > keys[b] : a < b;
  }
};

}  // namespace

size_t Candidates::num_blocks() const {
  return BlocksFor(size_);
}

TokenId Candidates::IdOf(size_t index) const {
  return ids_.empty() ? static_cast<TokenId>(index) : ids_[index];
}

void Candidates::Pad() {
  keys_.resize(num_blocks() * kBlock);
  std::fill(keys_.begin() + static_cast<std::ptrdiff_t>(size_), keys_.end(), kBanned);
}

void Candidates::Load(std::span<const float> logits) {
  size_ = logits.size();
  ids_.clear();
  keys_.resize(num_blocks() * kBlock);
  const size_t whole = size_ / kBlock * kBlock;
  for (size_t i = 0; i < whole; i += kBlock) LoadBlock(&logits[i], &keys_[i]);
  if (whole == size_) return;
  float rest[kBlock];
  std::fill_n(std::copy(logits.begin() + static_cast<std::ptrdiff_t>(whole), logits.end(), rest),
              kBlock - (size_ - whole), kBanned);
  LoadBlock(rest, &keys_[whole]);
}

float Candidates::MaxLogit() const {
  float max = kBanned;
  for (size_t b = 0; b < num_blocks(); b++) max = std::max(max, MaxOfBlock(&keys_[b * kBlock]));
  // A penalty below 1 may have taken the largest float out of range.
  return std::min(max, std::numeric_limits<float>::max());
}

double Candidates::Weigh(float max, float temperature) {
  weights_.resize(keys_.size());
  sums_.resize(num_blocks());
  double total = 0;
  const float scale = 1 / temperature;
  for (size_t b = 0; b < num_blocks(); b++) {
    float* weights = &weights_[b * kBlock];
    WeighBlock(&keys_[b * kBlock], max, scale, weights);
    sums_[b] = SumOfBlock(weights);
    total += sums_[b];
  }
  return total;
}

double Candidates::LogSumExp() {
  const float max = MaxLogit();
  if (max == kBanned) return kBanned;
  return max + std::log(Weigh(max, 1));
}

TokenId Candidates::Best() const {
  const float max = MaxLogit();
  for (size_t b = 0; b < num_blocks(); b++) {
    if (MaxOfBlock(&keys_[b * kBlock]) < max) continue;
    const float* block = &keys_[b * kBlock];
    return IdOf(static_cast<size_t>(
        std::find_if(block, block + kBlock, [max](float key) { return key >= max; }) -
        keys_.data()));
  }
  return IdOf(0);
}

std::vector<size_t> Candidates::CollectTop(const std::vector<float>& keys, size_t n) const {
  std::vector<float> maxima(num_blocks());
  for (size_t b = 0; b < num_blocks(); b++) maxima[b] = MaxOfBlock(&keys[b * kBlock]);
  float floor = kBanned;
  if (n > 0 && n <= maxima.size()) {
    std::vector<float> order = maxima;
    const auto nth = order.begin() + static_cast<std::ptrdiff_t>(n - 1);
    std::nth_element(order.begin(), nth, order.end(), std::greater<>());
    floor = *nth;
  }
  std::vector<size_t> found;
  for (size_t b = 0; b < num_blocks(); b++) {
    if (maxima[b] < floor) continue;
    for (size_t i = b * kBlock; i < std::min((b + 1) * kBlock, size_); i++) {
      if (keys[i] >= floor) found.push_back(i);
    }
  }
  return found;
}

std::vector<TokenId> Candidates::Tokens() const {
  std::vector<TokenId> tokens;
  for (size_t i = 0; i < size_; i++) {
    if (keys_[i] != kBanned) tokens.push_back(IdOf(i));
  }
  return tokens;
}

std::vector<TokenId> Candidates::Top(size_t n) const {
  std::vector<size_t> found = CollectTop(keys_, n);
  n = std::min(n, found.size());
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(n), found.end(),
                    KeyOrder{keys_});
  std::vector<TokenId> top;
  for (size_t i = 0; i < n; i++) top.push_back(IdOf(found[i]));
  return top;
}

void Candidates::KeepTopK(size_t k) {
  if (k == 0 || k >= size_) return;
  std::vector<size_t> found = CollectTop(keys_, k);
  const auto kth = found.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(found.begin(), kth, found.end(), KeyOrder{keys_});
  Apply(keys_, {.key = keys_[*kth], .index = *kth});
}

// The element with which the sum of weights_, taken in the order of `keys`, reaches `target`.
// Elements lighter than `least` are known to come after it.
Candidates::Cut Candidates::CutByWeight(const std::vector<float>& keys, double target,
                                        float least) {
  float top = kBanned;
  for (size_t b = 0; b < num_blocks(); b++) top = std::max(top, MaxOfBlock(&keys[b * kBlock]));
  std::array<double, kBuckets> histogram{};
  buckets_.resize(keys.size());
  for (size_t b = 0; b < num_blocks(); b++) {
    const float* weights = &weights_[b * kBlock];
    uint16_t* buckets = &buckets_[b * kBlock];
    SortIntoBuckets(&keys[b * kBlock], top, buckets);
    for (size_t i = 0; i < kBlock; i++) {
      if (weights[i] >= least) histogram[buckets[i]] += weights[i];
    }
  }
  double sum = 0;
  size_t bucket = 0;
  while (bucket + 1 < kBuckets && sum + histogram[bucket] < target) sum += histogram[bucket++];
  std::vector<size_t> found;
  for (size_t b = 0; b < num_blocks(); b++) {
    if (!HasBucket(&buckets_[b * kBlock], static_cast<uint16_t>(bucket))) continue;
    for (size_t i = b * kBlock; i < (b + 1) * kBlock; i++) {
      if (buckets_[i] == bucket && keys[i] != kBanned) found.push_back(i);
    }
  }
  // Halves the part in which the target is reached, without putting the rest in order.
  auto begin = found.begin(), end = found.end();
  while (end - begin > 1) {
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, KeyOrder{keys});
    double upper = 0;
    for (auto i = begin; i != middle; ++i) upper += weights_[*i];
    if (sum + upper >= target) {
      end = middle;
    } else {
      sum += upper;
      begin = middle;
    }
  }
  if (begin == end) return {};
  return {.key = keys[*begin], .index = *begin};
}

void Candidates::KeepTopP(float p) {
  const float max = MaxLogit();
  if (p >= 1 || max == kBanned) return;
  const double total = Weigh(max, 1);
  const double target = p * total;
  // All that are lighter than this weigh less together than what is beyond the target.
  const auto least = static_cast<float>(0.99 * (total - target) / static_cast<double>(size_));
  Apply(keys_, CutByWeight(keys_, target, least));
}

void Candidates::KeepMinP(float min_p) {
  if (min_p <= 0) return;
  const float max = MaxLogit();
  Apply(keys_, {.key = std::min(max, max + std::log(min_p))});
}

void Candidates::KeepTypical(float p) {
  const float max = MaxLogit();
  if (p >= 1 || max == kBanned) return;
  const double total = Weigh(max, 1);
  const double log_sum = std::log(total);
  double entropy = log_sum;  // of -sum p log p, with log p = logit - max - log_sum
  for (size_t b = 0; b < num_blocks(); b++) {
    float products[kBlock];
    for (size_t i = 0; i < kBlock; i++) {
      const size_t at = b * kBlock + i;
      products[i] = weights_[at] > 0.0f ? weights_[at] * (keys_[at] - max) : 0.0f;
    }
    entropy -= SumOfBlock(products) / total;
  }
  // Nearest first: the key is minus the distance between surprise and entropy.
  const auto centre = static_cast<float>(entropy - log_sum);
  distance_.resize(keys_.size());
  for (size_t i = 0; i < keys_.size(); i++) {
    distance_[i] = -std::fabs((max - keys_[i]) - centre);
  }
  // "Exceeds", not "reaches".
  Apply(distance_, CutByWeight(distance_, std::nextafter(p * total, 2 * total), 0));
}

void Candidates::Apply(const std::vector<float>& keys, const Cut& cut) {
  std::vector<size_t> live;
  size_t num_left = 0;
  for (size_t b = 0; b < num_blocks(); b++) {
    const size_t begin = b * kBlock;
    if (MaxOfBlock(&keys[begin]) < cut.key) {
      std::fill_n(&keys_[begin], kBlock, kBanned);
      continue;
    }
    live.push_back(b);
    float order[kBlock];  // a copy: `keys` may be keys_
    std::copy_n(&keys[begin], kBlock, order);
    const size_t num_ties = cut.index < begin ? 0 : std::min(cut.index - begin, kBlock - 1) + 1;
    num_left += CutBlock(order, cut.key, static_cast<int32_t>(num_ties), &keys_[begin]);
  }
  if (num_left < size_ / 4) MoveTogether(live);
}

void Candidates::MoveTogether(const std::vector<size_t>& live_blocks) {
  std::vector<TokenId> ids;
  size_t next = 0;
  for (size_t b : live_blocks) {
    for (size_t i = b * kBlock; i < std::min((b + 1) * kBlock, size_); i++) {
      if (keys_[i] == kBanned) continue;
      ids.push_back(IdOf(i));
      keys_[next++] = keys_[i];
    }
  }
  if (next == 0) return;  // all are banned: element 0 still is an answer
  ids_ = std::move(ids);
  size_ = next;
  Pad();
}

TokenId Candidates::Draw(double uniform, float temperature) {
  const float max = MaxLogit();
  if (max == kBanned) return IdOf(0);
  const double target = uniform * Weigh(max, temperature);
  double sum = 0;
  size_t last = 0;  // the last possible one, if rounding leaves something
  for (size_t b = 0; b < num_blocks(); b++) {
    if (sums_[b] == 0) continue;
    if (sum + sums_[b] <= target && b + 1 < num_blocks()) {
      sum += sums_[b];
      last = b;
      continue;
    }
    double inside = sum;
    for (size_t i = b * kBlock; i < (b + 1) * kBlock; i++) {
      if (weights_[i] == 0.0f) continue;
      inside += weights_[i];
      if (inside > target) return IdOf(i);
    }
    sum += sums_[b];
    last = b;
  }
  for (size_t i = (last + 1) * kBlock; i-- > last * kBlock;) {
    if (weights_[i] > 0.0f) return IdOf(i);
  }
  return IdOf(0);
}

}  // namespace trellis
