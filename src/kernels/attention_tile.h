// A few queries over one page of keys and values of type kType, for a vector type S of simd_*.h:
// scores, softmax with a running maximum, weighted sum of values.
//
// A tile is up to kTileRows queries, in registers. What a query computes is the same for every tile
// it may be part of and every form the page comes in: each score is one chain of multiply-adds over
// the dimensions, each dimension of the sum one chain over the keys. Scores are kept in powers of
// two: a weight is 2^(score * scale * log2 e - maximum).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/half.h"
#include "base/page_layout.h"
#include "base/types.h"
#include "kernels/simd_math.h"
#include "kernels/unroll.h"

namespace trellis {

// Below every real score, and finite: differences of it are numbers.
inline constexpr float kNoScore = -1e30f;

// Queries of a tile, on any instruction set.
inline constexpr size_t kMaxTileRows = 6;

// Keys and values of one kv head in one page.
struct PageView {
  const uint16_t* keys;         // [head_dim, kPageTokens]
  const uint16_t* values;       // [kPageTokens, head_dim], only num_valid rows are to be read
  const uint16_t* next_keys;    // of the page that is visited next, to be brought into the cache;
  const uint16_t* next_values;  // or those of this page again
  size_t first_position;
  size_t num_valid;
};

template <typename S, KvType kType>
struct AttentionTile {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr size_t kRows = S::kTileRows;
  static constexpr size_t kPageVectors = kPageTokens / kLanes;
  static_assert(kPageTokens % kLanes == 0 && kRows <= kMaxTileRows);

  struct Query {
    const float* q;
    size_t begin, end;  // positions it sees
    float max, sum;     // softmax state of the segment at hand
    float* acc;         // [head_dim]
  };

  // Makes scores exponents of two: queries are multiplied by `query`; where there is a cap, a score
  // then becomes cap * tanh(score).
  struct Scaling {
    Scaling(float scale, float softcap)
        : query(softcap > 0 ? scale / softcap : scale * kLog2E), cap(softcap * kLog2E) {}
    static constexpr float kLog2E = 1.44269504089f;
    float query, cap;
  };

  // Vectors of accumulators beside each of `rows` queries: as many as registers hold, a power of 2.
  static constexpr size_t VectorsFor(size_t rows, size_t budget, size_t most) {
    size_t vectors = 1;
    while (vectors * 2 <= most && vectors * 2 * rows <= budget) vectors *= 2;
    return vectors;
  }

  static F Load(const uint16_t* p) {
    return kType == KvType::kF16 ? S::LoadHalf(p) : S::LoadBf16(p);
  }
  static float LoadOne(uint16_t bits) {
    return kType == KvType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
  }

  // Queries [0, num), tile by tile. All of them see something of the page.
  static void Visit(float cap, size_t head_dim, const PageView& page, Query* const* queries,
                    size_t num, float* scores) {
    const size_t num_tiles = (num + kRows - 1) / kRows;
    PageView stay = page;
    stay.next_keys = page.keys, stay.next_values = page.values;
    for (size_t tile = 0; tile < num_tiles; tile++) {
      const size_t begin = num * tile / num_tiles, end = num * (tile + 1) / num_tiles;
      VisitTile<kRows>(cap, head_dim, tile + 1 == num_tiles ? page : stay, queries + begin,
                       end - begin, scores);
    }
  }

 private:
  template <size_t kElements>
  static void Prefetch(const uint16_t* p) {
    TRELLIS_UNROLL
    for (size_t i = 0; i < kElements; i += 32) __builtin_prefetch(p + i);
  }

  // acc[r][v] += a[r] * b[v] for one step of the depth.
  template <size_t kN, size_t kV, typename LoadA, typename LoadB>
  static void Step(F (&acc)[kN][kV], const LoadA& load_a, const LoadB& load_b) {
    if constexpr (kV <= kN) {
      F b[kV];
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v++) b[v] = load_b(v);
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        const F a = load_a(r);
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) acc[r][v] = S::MulAdd(a, b[v], acc[r][v]);
      }
    } else {
      F a[kN];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) a[r] = load_a(r);
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v++) {
        const F b = load_b(v);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++) acc[r][v] = S::MulAdd(a[r], b, acc[r][v]);
      }
    }
  }

  template <size_t kN>
  [[gnu::noinline]] static void Scores(size_t head_dim, const PageView& page, Query* const* queries,
                                       float* scores) {
    constexpr size_t kV = VectorsFor(kN, S::kAccumulators, kPageVectors);
    const float* q[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) q[r] = queries[r]->q;
    for (size_t key = 0; key < kPageTokens; key += kV * kLanes) {
      F acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) acc[r][v] = S::Set(0);
      }
      const uint16_t* keys = page.keys + key;
      const uint16_t* next = page.next_keys;
      for (size_t d = 0; d < head_dim; d++) {
        Prefetch<kPageTokens>(next + d * kPageTokens);
        Step<kN, kV>(
            acc, [&](size_t r) { return S::Set(q[r][d]); },
            [&](size_t v) { return Load(keys + d * kPageTokens + v * kLanes); });
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++)
          S::Store(scores + r * kPageTokens + key + v * kLanes, acc[r][v]);
      }
    }
  }

  static void Cap(float cap, float* scores) {
    for (size_t t = 0; t < kPageTokens; t += kLanes)
      S::Store(scores + t, S::Mul(Tanh<S>(S::Load(scores + t)), S::Set(cap)));
  }

  // Keys outside what the query sees weigh nothing.
  static void Mask(const Query& query, size_t first_position, float* scores) {
    if (query.begin > first_position) {
      for (size_t t = 0; t < query.begin - first_position; t++) scores[t] = -INFINITY;
    }
    if (query.end < first_position + kPageTokens) {
      for (size_t t = query.end - first_position; t < kPageTokens; t++) scores[t] = -INFINITY;
    }
  }

  // Scores -> weights in place; updates maxima and sums; alphas: what the queries' sums so far are
  // to be scaled by.
  template <size_t kN>
  [[gnu::noinline]] static void Softmax(float cap, size_t first_position, Query* const* queries,
                                        float* scores, float* alphas) {
    constexpr size_t kPadded = (kN + kLanes - 1) / kLanes * kLanes;
    float maxima[kN], fall[kPadded] = {};
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      float* row = scores + r * kPageTokens;
      if (cap > 0) Cap(cap, row);
      Mask(*queries[r], first_position, row);
      F max = S::Load(row);
      TRELLIS_UNROLL
      for (size_t v = 1; v < kPageVectors; v++) max = S::Max(max, S::Load(row + v * kLanes));
      const float before = queries[r]->max;
      maxima[r] = std::max(before, S::MaxOf(max));
      fall[r] = before - maxima[r];
    }
    TRELLIS_UNROLL
    for (size_t r = 0; r < kPadded; r += kLanes)
      S::Store(alphas + r, Exp2OfNegative<S>(S::Load(fall + r)));
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      float* row = scores + r * kPageTokens;
      const F max = S::Set(maxima[r]);
      F sum = S::Set(0);
      TRELLIS_UNROLL
      for (size_t v = 0; v < kPageVectors; v++) {
        const F weight = Exp2OfNegative<S>(S::Sub(S::Load(row + v * kLanes), max));
        S::Store(row + v * kLanes, weight);
        sum = S::Add(sum, weight);
      }
      queries[r]->sum = std::fma(queries[r]->sum, alphas[r], S::Sum(sum));
      queries[r]->max = maxima[r];
    }
  }

  template <size_t kN, size_t kV>
  static void AccumulateColumns(size_t head_dim, size_t* d, const PageView& page,
                                Query* const* queries, const float* weights, const float* alphas) {
    for (; *d + kV * kLanes <= head_dim; *d += kV * kLanes) {
      F acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        const F alpha = S::Set(alphas[r]);
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++)
          acc[r][v] = S::Mul(S::Load(queries[r]->acc + *d + v * kLanes), alpha);
      }
      const uint16_t* values = page.values + *d;
      const uint16_t* next = page.next_values + *d;
      for (size_t t = 0; t < page.num_valid; t++) {
        Prefetch<kV * kLanes>(next + t * head_dim);
        Step<kN, kV>(
            acc, [&](size_t r) { return S::Set(weights[r * kPageTokens + t]); },
            [&](size_t v) { return Load(values + t * head_dim + v * kLanes); });
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) S::Store(queries[r]->acc + *d + v * kLanes, acc[r][v]);
      }
    }
    if constexpr (kV > 1)
      AccumulateColumns<kN, kV / 2>(head_dim, d, page, queries, weights, alphas);
  }

  template <size_t kN>
  [[gnu::noinline]] static void Accumulate(size_t head_dim, const PageView& page,
                                           Query* const* queries, const float* weights,
                                           const float* alphas) {
    constexpr size_t kV = VectorsFor(kN, S::kAccumulators, 8);
    size_t d = 0;
    AccumulateColumns<kN, kV>(head_dim, &d, page, queries, weights, alphas);
    for (; d < head_dim; d++) {  // head_dim 8 or 24 on 16 lanes
      for (size_t r = 0; r < kN; r++) {
        float acc = queries[r]->acc[d] * alphas[r];
        for (size_t t = 0; t < page.num_valid; t++)
          acc = std::fma(weights[r * kPageTokens + t], LoadOne(page.values[t * head_dim + d]), acc);
        queries[r]->acc[d] = acc;
      }
    }
  }

  template <size_t kN>
  static void VisitTile(float cap, size_t head_dim, const PageView& page, Query* const* queries,
                        size_t num, float* scores) {
    if constexpr (kN > 1) {
      if (num < kN) return VisitTile<kN - 1>(cap, head_dim, page, queries, num, scores);
    }
    float alphas[(kN + kLanes - 1) / kLanes * kLanes];
    Scores<kN>(head_dim, page, queries, scores);
    Softmax<kN>(cap, page.first_position, queries, scores, alphas);
    Accumulate<kN>(head_dim, page, queries, scores, alphas);
  }
};

}  // namespace trellis
