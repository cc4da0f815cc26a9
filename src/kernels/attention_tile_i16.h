// attention_tile.h for pages of 16-bit integers.
//
// A key is 15 bits and sign in units of its row's own scale, and so is a query; x86 multiplies
// pairs of them and adds the two products at twice the rate of f32. Sums are exact: integers of 32
// bits that cannot overflow, as |q . k| <= |q| |k| < 2^31. A value is 14 bits and sign; weights
// times the scales of their values are integers, too, as large as their sum over a visit allows;
// what visits come to is added up in f32. Rows without outliers are kept about as exactly as in
// f16, whose numbers are off by 2^-11 of themselves at most, and keys with a large bias better.
#pragma once

#include "base/half.h"
#include "kernels/attention_tile.h"

namespace trellis {

template <typename S>
struct AttentionTile<S, KvType::kI16> {
  using F = typename S::F;
  using I = typename S::I;
  static constexpr size_t kLanes = S::kLanes;
  static_assert(kPageTokens % kLanes == 0 && S::kTileRows <= kMaxTileRows);

  // Times kKeyNorm, with what rounding adds, sqrt(head_dim) / 2 each, this is below 2^31.
  static constexpr float kQueryNorm = 32500;
  // So is this times kValueMost: the sum of a visit's weights, and the largest of them.
  static constexpr float kWeightSum = 130000, kWeightMost = 32767;
  // Queries of a smaller norm are taken for zeros, and weights of a smaller sum.
  static constexpr float kTinyNorm = 1e-15f, kTinyWeight = 1e-30f;

  // query->q -> integers, which are written to `to`. A NaN or Inf makes all scores NaN, as with
  // floats.
  static void Prepare(size_t head_dim, int16_t* to, AttentionQuery* query) {
    const float norm = std::max(SizeOf(query->q, head_dim).norm, kTinyNorm);
    float nothing = 0;
    for (size_t d = 0; d < head_dim; d++) nothing += query->q[d] * 0.0f;
    Round(query->q, head_dim, kQueryNorm / norm, [&](size_t d, int16_t x) { to[d] = x; });
    query->integers = to;
    query->unit = norm / kQueryNorm + nothing;
  }

  // kN queries, all of which see something of the visit. scores: [kN, kVisitTokens].
  template <size_t kN>
  static void Visit(float cap, size_t head_dim, const PageVisit& visit,
                    AttentionQuery* const* queries, float* scores) {
    using Softmax = AttentionSoftmax<S>;
    typename Softmax::Each alphas, units;
    typename Softmax::Scaled scaled;
    int16_t weights[kN * kVisitTokens];
    Scores<kN>(head_dim, visit, queries, scores);
    Softmax::template Weigh<kN, true>(cap, visit, queries, scores, alphas, &scaled);
    RoundWeights<kN>(scores, scaled, weights, units);
    Accumulate<kN>(head_dim, visit, queries, weights, units, alphas);
  }

  // Row t of the page's K and V, [head_dim] each.
  static void Write(const PageLayout& layout, size_t t, const float* k, const float* v,
                    uint16_t* keys, uint16_t* values, float* scales) {
    const size_t head_dim = layout.head_dim;
    const Size k_size = SizeOf(k, head_dim), v_size = SizeOf(v, head_dim);
    scales[t] = std::max(
        {k_size.most / I16Rows::kKeyMost, k_size.norm / I16Rows::kKeyNorm, I16Rows::kLeastScale});
    scales[kPageTokens + t] = std::max(v_size.most / I16Rows::kValueMost, I16Rows::kLeastScale);
    Round(k, head_dim, 1 / scales[t],
          [&](size_t d, int16_t x) { keys[layout.k_index(t, d)] = static_cast<uint16_t>(x); });
    Round(v, head_dim, 1 / scales[kPageTokens + t],
          [&](size_t d, int16_t x) { values[layout.v_index(t, d)] = static_cast<uint16_t>(x); });
  }

 private:
  template <size_t kN, size_t kV>
  static void Clear(I (&acc)[kN][kV]) {
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v++) acc[r][v] = S::ZeroI();
    }
  }

  // acc[r][v] += the pair at a[r] + offset times the pairs of vector v of b.
  template <size_t kN, size_t kV>
  [[gnu::always_inline]] static void Step(I (&acc)[kN][kV], const int16_t* const (&a)[kN],
                                          size_t offset, const uint16_t* b) {
    if constexpr (kV == 1) {
      const auto b0 = S::LoadPairs(b);
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) S::AddPairs(a[r] + offset, b0, acc[r][0]);
    } else {
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v += 2) {
        const auto b0 = S::LoadPairs(b + 2 * v * kLanes);
        const auto b1 = S::LoadPairs(b + 2 * (v + 1) * kLanes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++)
          S::AddPairs(a[r] + offset, b0, b1, acc[r][v], acc[r][v + 1]);
      }
    }
  }

  template <size_t kN>
  [[gnu::noinline]] static void Scores(size_t head_dim, const PageVisit& visit,
                                       AttentionQuery* const* queries, float* scores) {
    constexpr size_t kV = TileVectors(kN, S::kAccumulators, kPageTokens / kLanes);
    const int16_t* q[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) q[r] = queries[r]->integers;
    for (size_t key = visit.first_page * kPageTokens; key < visit.num_pages * kPageTokens;
         key += kV * kLanes) {
      I acc[kN][kV];
      Clear(acc);
      const PageView& page = visit.pages[key / kPageTokens];
      const uint16_t* keys = page.keys + 2 * (key % kPageTokens);
      const uint16_t* next = visit.next[key / kPageTokens].keys + key % kPageTokens * head_dim;
      for (size_t d = 0; d < head_dim; d += 2, next += 2 * kV * kLanes) {
        PrefetchElements<2 * kV * kLanes>(next);
        Step(acc, q, d, keys + d * kPageTokens);
      }
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v++) {
        const F scale = S::Load(page.scales + key % kPageTokens + v * kLanes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++) {
          const F unit = S::Mul(scale, S::Set(queries[r]->unit));
          S::Store(scores + r * kVisitTokens + key + v * kLanes,
                   S::Mul(S::ToFloat(acc[r][v]), unit));
        }
      }
    }
  }

  // Scaled weights [kN, kVisitTokens] -> integers, and what one of them stands for.
  template <size_t kN>
  [[gnu::noinline]] static void RoundWeights(const float* weights,
                                             const typename AttentionSoftmax<S>::Scaled& scaled,
                                             int16_t* integers, float* units) {
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      units[r] =
          std::max({scaled.sums[r] / kWeightSum, scaled.largest[r] / kWeightMost, kTinyWeight});
      const F factor = S::Set(1 / units[r]);
      TRELLIS_UNROLL
      for (size_t v = 0; v < kVisitTokens; v += kLanes) {
        const size_t at = r * kVisitTokens + v;
        S::StoreInt16(integers + at, S::Mul(S::Load(weights + at), factor));
      }
    }
  }

  template <size_t kN, size_t kV>
  static void AccumulateColumns(size_t head_dim, size_t* d, const PageVisit& visit,
                                AttentionQuery* const* queries, const int16_t* weights,
                                const float* units, const float* alphas) {
    const int16_t* rows[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) rows[r] = weights + r * kVisitTokens;
    for (; *d + kV * kLanes <= head_dim; *d += kV * kLanes) {
      I acc[kN][kV];
      Clear(acc);
      for (size_t page = visit.first_page; page < visit.num_pages; page++) {
        const uint16_t* values = visit.pages[page].values + 2 * *d;
        const uint16_t* next = visit.next[page].values + *d * kPageTokens;
        for (size_t t = 0; t < visit.num_valid_of(page); t += 2, next += 2 * kV * kLanes) {
          PrefetchElements<2 * kV * kLanes>(next);
          Step(acc, rows, page * kPageTokens + t, values + t * head_dim);
        }
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        const F alpha = S::Set(alphas[r]), unit = S::Set(units[r]);
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) {
          float* sum = queries[r]->acc + *d + v * kLanes;
          S::Store(sum, S::MulAdd(S::ToFloat(acc[r][v]), unit, S::Mul(S::Load(sum), alpha)));
        }
      }
    }
    if constexpr (kV > 1)
      AccumulateColumns<kN, kV / 2>(head_dim, d, visit, queries, weights, units, alphas);
  }

  template <size_t kN>
  [[gnu::noinline]] static void Accumulate(size_t head_dim, const PageVisit& visit,
                                           AttentionQuery* const* queries, const int16_t* weights,
                                           const float* units, const float* alphas) {
    constexpr size_t kV = TileVectors(kN, S::kAccumulators, 8);
    const PageLayout layout{.head_dim = head_dim, .type = KvType::kI16};
    size_t d = 0;
    AccumulateColumns<kN, kV>(head_dim, &d, visit, queries, weights, units, alphas);
    for (; d < head_dim; d++) {  // head_dim 8 or 24 on 16 lanes
      for (size_t r = 0; r < kN; r++) {
        int32_t sum = 0;
        for (size_t t = visit.first_page * kPageTokens; t < visit.num_valid; t++) {
          const uint16_t* values = visit.pages[t / kPageTokens].values;
          const auto value = static_cast<int16_t>(values[layout.v_index(t % kPageTokens, d)]);
          sum += weights[r * kVisitTokens + t] * value;
        }
        float* acc = queries[r]->acc + d;
        *acc = std::fma(static_cast<float>(sum), units[r], *acc * alphas[r]);
      }
    }
  }

  struct Size {
    float most, norm;  // largest magnitude, Euclidean
  };
  static Size SizeOf(const float* x, size_t n) {
    F most = S::Set(0), squares = S::Set(0);
    for (size_t i = 0; i < n; i += kLanes) {
      const F v = Kept(x, n, i);
      most = S::Max(most, S::Max(v, S::Sub(S::Set(0), v)));
      squares = S::MulAdd(v, v, squares);
    }
    return {S::MaxOf(most), std::sqrt(S::Sum(squares))};
  }

  // Gives put(i, integer) x[i] * factor, i < n.
  template <typename Put>
  static void Round(const float* x, size_t n, float factor, const Put& put) {
    int16_t integers[kLanes];
    for (size_t i = 0; i < n; i += kLanes) {
      S::StoreInt16(integers, S::Mul(Kept(x, n, i), S::Set(factor)));
      for (size_t j = 0; j < kLanes && i + j < n; j++) put(i + j, integers[j]);
    }
  }

  // Elements i .. of x [n] within the range of f16; NaN, and what is beyond the end, as 0.
  static F Kept(const float* x, size_t n, size_t i) {
    float padded[kLanes] = {};
    if (i + kLanes > n) std::copy(x + i, x + n, padded);
    return FiniteWithin<S>(S::Load(i + kLanes > n ? padded : x + i), kMaxHalf);
  }
};

}  // namespace trellis
