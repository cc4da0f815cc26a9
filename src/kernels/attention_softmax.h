// What tiles of every type of page share: queries, the page at hand, scores -> weights with a
// running maximum. For a vector type S of simd_*.h.
//
// Scores are kept in powers of two: a weight is 2^(score * scale * log2 e - maximum).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/page_layout.h"
#include "base/types.h"
#include "kernels/attention.h"
#include "kernels/simd_math.h"
#include "kernels/unroll.h"

namespace trellis {

// Below every real score, and finite: differences of it are numbers.
inline constexpr float kNoScore = -1e30f;

// Queries of a tile, on any instruction set.
inline constexpr size_t kMaxTileRows = 12;

struct AttentionQuery {
  const float* q;           // [head_dim], times AttentionScaling::query; rotated as keys are
  const int16_t* integers;  // for pages of integers: q as AttentionProducts::Store leaves it
  float unit;               // what a score is a multiple of, but for the scale of its key
  int32_t offset;           // what sums of products with them begin with
  size_t begin, end;        // positions it sees
  float max, sum;           // softmax state of the segment at hand
  float* acc;               // [head_dim]
};

// Keys and values of one kv head in one page; base/page_layout.h has their order.
struct PageView {
  const std::byte* keys;
  const std::byte* values;
  const float* scales;  // [2, kPageTokens], where the type has them
};

// Queries visit this many pages at once, from a multiple of as many on, which shares what a visit
// costs beside its multiply-adds.
inline constexpr size_t kVisitPages = 4, kVisitTokens = kVisitPages * kPageTokens;
static_assert(kSegmentTokens % kVisitTokens == 0);

// Pages that queries visit at once, of which [first_page, num_pages) are read.
struct PageVisit {
  PageView pages[kVisitPages];
  PageView next[kVisitPages];  // to be brought into the cache while that of `pages` is read
  size_t first_position;       // of all of the pages
  size_t first_page, num_pages;
  size_t num_valid;                  // rows; what lies beyond them may be anything
  float value_scales[kVisitTokens];  // where the type has them; 0 in rows that are not read

  size_t num_valid_of(size_t page) const {
    return std::min(num_valid - page * kPageTokens, kPageTokens);
  }
  // To the pages that hold something of positions [begin, end), which some of it are.
  void LimitTo(size_t begin, size_t end) {
    first_page = begin > first_position ? (begin - first_position) / kPageTokens : 0;
    num_valid = std::min(kVisitTokens, end - first_position);
    num_pages = PagesFor(num_valid);
  }
};

// Makes scores exponents of two: queries are multiplied by `query`; where there is a cap, a score
// then becomes cap * tanh(score).
struct AttentionScaling {
  AttentionScaling(float scale, float softcap)
      : query(softcap > 0 ? scale / softcap : scale * kLog2E), cap(softcap * kLog2E) {}
  static constexpr float kLog2E = 1.44269504089f;
  float query, cap;
};

// What pages hold of x: NaN is 0, the rest lies within +-most.
template <typename S>
inline typename S::F FiniteWithin(typename S::F x, float most) {
  const typename S::F number = S::IfGreaterEqual(x, x, x);  // NaN is not
  return S::Max(S::Min(number, S::Set(most)), S::Set(-most));
}

// A tile prefetches as much in a step as it reads, to L2, as L1 may be full of the pages at hand,
// and in the order of memory: hardware goes on from there.
template <size_t kBytes>
inline void PrefetchBytes(const std::byte* p) {
  TRELLIS_UNROLL
  for (size_t i = 0; i < kBytes; i += 64) __builtin_prefetch(p + i, 0, 2);
}

// Vectors of accumulators beside each of `rows` queries: as many as registers hold, a power of 2.
constexpr size_t TileVectors(size_t rows, size_t budget, size_t most) {
  size_t vectors = 1;
  while (vectors * 2 <= most && vectors * 2 * rows <= budget) vectors *= 2;
  return vectors;
}

template <typename S>
struct AttentionSoftmax {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr size_t kVectors = kVisitTokens / kLanes;
  // One number for each query of a tile, in whole vectors.
  static constexpr size_t kPadded = (kMaxTileRows + kLanes - 1) / kLanes * kLanes;
  using Each = float[kPadded];

  // Of weights times the scales of their values.
  struct Scaled {
    Each sums, largest;
  };

  // `scores` [kN, kVisitTokens] -> weights in place, 0 for keys that a query does not see; updates
  // maxima and sums. alphas: what the queries' sums so far are to be scaled by. kScaled: then
  // weights are multiplied by the scales of their values.
  template <size_t kN, bool kScaled>
  [[gnu::noinline]] static void Weigh(float cap, const PageVisit& visit,
                                      AttentionQuery* const* queries, float* scores, Each& alphas,
                                      Scaled* scaled) {
    Each maxima, sums;
    Maxima<kN>(cap, visit, queries, scores, maxima, alphas);
    F sum[kN], scaled_sum[kN], scaled_most[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      const F max = S::Set(maxima[r]);
      sum[r] = scaled_sum[r] = scaled_most[r] = S::Set(0);
      TRELLIS_UNROLL
      for (size_t v = 0; v < kVectors; v++) {
        float* at = scores + r * kVisitTokens + v * kLanes;
        F weight = Exp2OfNegative<S>(S::Sub(S::Load(at), max));
        sum[r] = S::Add(sum[r], weight);
        if constexpr (kScaled) {
          weight = S::Mul(weight, S::Load(visit.value_scales + v * kLanes));
          scaled_sum[r] = S::Add(scaled_sum[r], weight);
          scaled_most[r] = S::Max(scaled_most[r], weight);
        }
        S::Store(at, weight);
      }
    }
    SumOfEach(sum, sums);
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) queries[r]->sum = std::fma(queries[r]->sum, alphas[r], sums[r]);
    if constexpr (kScaled) {
      SumOfEach(scaled_sum, scaled->sums);
      MaxOfEach(scaled_most, scaled->largest);
    }
  }

  template <size_t kN>
  static void SumOfEach(const F (&v)[kN], Each& to) {
    S::Store(to, S::OfEach(v, [](F a, F b) { return S::Add(a, b); }));
  }

 private:
  template <size_t kN>
  static void MaxOfEach(const F (&v)[kN], Each& to) {
    S::Store(to, S::OfEach(v, [](F a, F b) { return S::Max(a, b); }));
  }

  // New maxima; masks scores.
  template <size_t kN>
  [[gnu::always_inline]] static void Maxima(float cap, const PageVisit& visit,
                                            AttentionQuery* const* queries, float* scores,
                                            Each& maxima, Each& alphas) {
    F max[kN];
    Each before = {};
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      float* row = scores + r * kVisitTokens;
      if (cap > 0)
        Cap(cap, row + visit.first_page * kPageTokens, row + visit.num_pages * kPageTokens);
      if (!SeesAll(*queries[r], visit)) Mask(*queries[r], visit.first_position, row);
      max[r] = S::Load(row);
      TRELLIS_UNROLL
      for (size_t v = 1; v < kVectors; v++) max[r] = S::Max(max[r], S::Load(row + v * kLanes));
      before[r] = queries[r]->max;
    }
    MaxOfEach(max, maxima);
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r += kLanes) {
      const F old = S::Load(before + r), now = S::Max(old, S::Load(maxima + r));
      S::Store(maxima + r, now);
      S::Store(alphas + r, Exp2OfNegative<S>(S::Sub(old, now)));
    }
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) queries[r]->max = maxima[r];
  }

  [[gnu::noinline]] static void Cap(float cap, float* scores, const float* end) {
    for (; scores != end; scores += kLanes)
      S::Store(scores, S::Mul(Tanh<S>(S::Load(scores)), S::Set(cap)));
  }

  static bool SeesAll(const AttentionQuery& query, const PageVisit& visit) {
    return query.begin <= visit.first_position && query.end >= visit.first_position + kVisitTokens;
  }

  // Keys outside what the query sees weigh nothing.
  [[gnu::noinline]] static void Mask(const AttentionQuery& query, size_t first_position,
                                     float* scores) {
    for (size_t t = 0; t < kVisitTokens; t++) {
      const size_t position = first_position + t;
      if (position < query.begin || position >= query.end) scores[t] = -INFINITY;
    }
  }
};

}  // namespace trellis
