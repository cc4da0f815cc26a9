// attention_tile.h for pages of integers (attention_products.h): queries and weights are rounded to
// integers, too, and what the keys of a query, or the values of a visit come to is an exact sum of
// products. What visits come to is added up in f32.
//
// Rows of 16 bits without outliers are kept about as exactly as in f16, whose numbers are off by
// 2^-11 of themselves at most, and keys with a large bias better.
#pragma once

#include "base/check.h"
#include "base/half.h"
#include "kernels/attention_products.h"
#include "kernels/attention_tile.h"
#include "kernels/rotation.h"

namespace trellis {

template <typename S, KvType kType>
requires(PageLayout{.type = kType}.has_scales()) struct AttentionTile<S, kType> {
  using F = typename S::F;
  using Products = AttentionProducts<S, kType>;
  using Sum = typename Products::Sum;
  using Element = typename Products::Element;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr size_t kInterleave = PageLayout{.type = kType}.interleave();
  // Bytes that a step reads for a vector of accumulators.
  static constexpr size_t kStepBytes = kLanes * kInterleave * sizeof(Element);
  // Pages of bytes take twice the accumulators. Pages of a visit that do not fit L1 come from L2
  // for each tile, so the more queries the better.
  static constexpr size_t kRows = kType == KvType::kI16 ? S::kPairTileRows : S::kTileRows;
  static_assert(kPageTokens % kLanes == 0 && kRows <= kMaxTileRows);

  // Queries of a smaller norm are taken for zeros, and weights of a smaller sum.
  static constexpr float kTinyNorm = 1e-15f, kTinyWeight = 1e-30f;

  // q -> integers, which are written to `to`. A NaN or Inf makes all scores NaN, as with floats.
  static void Prepare(size_t head_dim, float* q, int16_t* to, AttentionQuery* query) {
    float nothing = 0;
    for (size_t d = 0; d < head_dim; d++) nothing += q[d] * 0.0f;
    if constexpr (Products::kRotates) Rotation<S>::Apply(q, head_dim);
    RowSize size = SizeOf(q, head_dim);
    size.norm = std::max(size.norm, kTinyNorm);
    const float unit = Products::QueryUnit(size, head_dim);
    F sum = S::Set(0);
    for (size_t d = 0; d < head_dim; d += kLanes)
      Products::Store(to, head_dim, d, S::Mul(Kept(q, head_dim, d), S::Set(1 / unit)), &sum);
    query->integers = to;
    query->unit = unit * RotationFactor(head_dim) + nothing;
    query->offset = Products::Offset(S::Sum(sum));
  }

  // kN queries, all of which see something of the visit. scores: [kN, kVisitTokens].
  template <size_t kN>
  static void Visit(float cap, size_t head_dim, const PageVisit& visit,
                    AttentionQuery* const* queries, float* scores) {
    using Softmax = AttentionSoftmax<S>;
    typename Softmax::Each alphas;
    typename Softmax::Scaled scaled;
    Weights<kN> weights;
    Scores<kN>(head_dim, visit, queries, scores);
    Softmax::template Weigh<kN, true>(cap, visit, queries, scores, alphas, &scaled);
    RoundWeights<kN>(scores, scaled, &weights);
    Accumulate<kN>(head_dim, visit, queries, weights, alphas);
  }

  // The sum of values is rotated as they are.
  static float Finish(size_t head_dim, float* acc) {
    if constexpr (Products::kRotates) Rotation<S>::Apply(acc, head_dim);
    return RotationFactor(head_dim);
  }

  // Row t of the page's K and V, [head_dim] each.
  static void Write(const PageLayout& layout, size_t t, const float* k, const float* v,
                    std::byte* keys, std::byte* values, float* scales) {
    const auto at = [](std::byte* p, size_t i) { return reinterpret_cast<Element*>(p) + i; };
    scales[t] = WriteRow(k, layout.head_dim, Products::KeyScale,
                         [&](size_t d, Element x) { *at(keys, layout.k_index(t, d)) = x; });
    scales[kPageTokens + t] =
        WriteRow(v, layout.head_dim, Products::ValueScale,
                 [&](size_t d, Element x) { *at(values, layout.v_index(t, d)) = x; });
  }

 private:
  // Of a visit: integers, what one of them stands for, and what sums of products with them begin
  // with.
  template <size_t kN>
  struct Weights {
    int16_t integers[kN * kVisitTokens];
    typename AttentionSoftmax<S>::Each units;
    int32_t offsets[kN];
  };

  static constexpr size_t VectorsBeside(size_t rows, size_t most) {
    return TileVectors(rows, S::kAccumulators * sizeof(typename S::I) / sizeof(Sum), most);
  }

  // What twice rotated rows are to be multiplied by.
  static float RotationFactor(size_t head_dim) {
    return Products::kRotates ? 1 / static_cast<float>(RotationBlock(head_dim)) : 1;
  }

  template <size_t kN>
  [[gnu::noinline]] static void Scores(size_t head_dim, const PageVisit& visit,
                                       AttentionQuery* const* queries, float* scores) {
    constexpr size_t kV = VectorsBeside(kN, kPageTokens / kLanes);
    const int16_t* q[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) q[r] = queries[r]->integers;
    for (size_t key = visit.first_page * kPageTokens; key < visit.num_pages * kPageTokens;
         key += kV * kLanes) {
      Sum acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) acc[r][v] = Products::Start(queries[r]->offset);
      }
      const PageView& page = visit.pages[key / kPageTokens];
      const size_t in_page = key % kPageTokens;
      const std::byte* keys = page.keys + in_page * kInterleave * sizeof(Element);
      const std::byte* next =
          visit.next[key / kPageTokens].keys + in_page * head_dim * sizeof(Element);
      for (size_t d = 0; d < head_dim; d += kInterleave, next += kV * kStepBytes) {
        PrefetchBytes<kV * kStepBytes>(next);
        Products::Add(acc, q, head_dim, d, keys + d * kPageTokens * sizeof(Element));
      }
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v++) {
        const F scale = S::Load(page.scales + in_page + v * kLanes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++) {
          const F unit = S::Mul(scale, S::Set(queries[r]->unit));
          S::Store(scores + r * kVisitTokens + key + v * kLanes,
                   S::Mul(S::ToFloat(Products::Total(acc[r][v])), unit));
        }
      }
    }
  }

  // Scaled weights [kN, kVisitTokens] -> integers.
  template <size_t kN>
  [[gnu::noinline]] static void RoundWeights(const float* from,
                                             const typename AttentionSoftmax<S>::Scaled& scaled,
                                             Weights<kN>* weights) {
    F sums[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) {
      const float unit =
          std::max(Products::WeightUnit(scaled.sums[r], scaled.largest[r]), kTinyWeight);
      const F factor = S::Set(1 / unit);
      weights->units[r] = unit;
      sums[r] = S::Set(0);
      TRELLIS_UNROLL
      for (size_t v = 0; v < kVisitTokens; v += kLanes) {
        Products::Store(weights->integers + r * kVisitTokens, kVisitTokens, v,
                        S::Mul(S::Load(from + r * kVisitTokens + v), factor), &sums[r]);
      }
    }
    typename AttentionSoftmax<S>::Each totals;
    AttentionSoftmax<S>::SumOfEach(sums, totals);
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) weights->offsets[r] = Products::Offset(totals[r]);
  }

  template <size_t kN, size_t kV>
  static void AccumulateColumns(size_t head_dim, size_t* d, const PageVisit& visit,
                                AttentionQuery* const* queries, const Weights<kN>& weights,
                                const float* alphas) {
    const int16_t* rows[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) rows[r] = weights.integers + r * kVisitTokens;
    for (; *d + kV * kLanes <= head_dim; *d += kV * kLanes) {
      Sum acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) acc[r][v] = Products::Start(weights.offsets[r]);
      }
      for (size_t page = visit.first_page; page < visit.num_pages; page++) {
        const std::byte* values = visit.pages[page].values + *d * kInterleave * sizeof(Element);
        const std::byte* next = visit.next[page].values + *d * kPageTokens * sizeof(Element);
        for (size_t t = 0; t < visit.num_valid_of(page);
             t += kInterleave, next += kV * kStepBytes) {
          PrefetchBytes<kV * kStepBytes>(next);
          Products::Add(acc, rows, kVisitTokens, page * kPageTokens + t,
                        values + t * head_dim * sizeof(Element));
        }
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        const F alpha = S::Set(alphas[r]), unit = S::Set(weights.units[r]);
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) {
          float* sum = queries[r]->acc + *d + v * kLanes;
          S::Store(sum, S::MulAdd(S::ToFloat(Products::Total(acc[r][v])), unit,
                                  S::Mul(S::Load(sum), alpha)));
        }
      }
    }
    if constexpr (kV > 1)
      AccumulateColumns<kN, kV / 2>(head_dim, d, visit, queries, weights, alphas);
  }

  template <size_t kN>
  [[gnu::noinline]] static void Accumulate(size_t head_dim, const PageVisit& visit,
                                           AttentionQuery* const* queries,
                                           const Weights<kN>& weights, const float* alphas) {
    constexpr size_t kV = VectorsBeside(kN, 8);
    const PageLayout layout{.head_dim = head_dim, .type = kType};
    size_t d = 0;
    AccumulateColumns<kN, kV>(head_dim, &d, visit, queries, weights, alphas);
    for (; d < head_dim; d++) {  // head_dim 8 or 24 on 16 lanes
      for (size_t r = 0; r < kN; r++) {
        int32_t sum = 0;
        for (size_t t = visit.first_page * kPageTokens; t < visit.num_valid; t++) {
          const auto* values =
              reinterpret_cast<const Element*>(visit.pages[t / kPageTokens].values);
          sum += Products::Product(weights.integers + r * kVisitTokens, kVisitTokens, t,
                                   values[layout.v_index(t % kPageTokens, d)]);
        }
        float* acc = queries[r]->acc + d;
        *acc = std::fma(static_cast<float>(sum), weights.units[r], *acc * alphas[r]);
      }
    }
  }

  // Gives put(d, element) the integers of a key or value; returns their scale.
  template <typename ScaleOf, typename Put>
  static float WriteRow(const float* x, size_t head_dim, const ScaleOf& scale_of, const Put& put) {
    [[maybe_unused]] float rotated[Products::kRotates ? kMaxHeadDim : 1];
    if constexpr (Products::kRotates) {
      TRELLIS_DCHECK(head_dim <= kMaxHeadDim);
      for (size_t i = 0; i < head_dim; i += kLanes)
        S::Store(rotated + i, FiniteWithin<S>(Padded(x, head_dim, i), kMaxHalf));
      Rotation<S>::Apply(rotated, head_dim);
      x = rotated;
    }
    const float scale = std::max(scale_of(SizeOf(x, head_dim)), kLeastKvScale);
    int16_t integers[kLanes];
    for (size_t i = 0; i < head_dim; i += kLanes) {
      S::StoreInt16(integers, S::Mul(Kept(x, head_dim, i), S::Set(1 / scale)));
      for (size_t j = 0; j < kLanes && i + j < head_dim; j++)
        put(i + j, Products::FromInteger(integers[j]));
    }
    return scale;
  }

  static RowSize SizeOf(const float* x, size_t n) {
    F most = S::Set(0), squares = S::Set(0);
    for (size_t i = 0; i < n; i += kLanes) {
      const F v = Kept(x, n, i);
      most = S::Max(most, S::Max(v, S::Sub(S::Set(0), v)));
      squares = S::MulAdd(v, v, squares);
    }
    return {S::MaxOf(most), std::sqrt(S::Sum(squares))};
  }

  // Elements i .. of x [n], which are within the range of f16 where they are not rotated; NaN as 0.
  static F Kept(const float* x, size_t n, size_t i) {
    constexpr float kMost = Products::kRotates ? kMaxHalf * kMaxHeadDim : kMaxHalf;
    return FiniteWithin<S>(Padded(x, n, i), kMost);
  }

  // Elements i .. of x [n]; what is beyond the end is 0.
  static F Padded(const float* x, size_t n, size_t i) {
    float padded[kLanes] = {};
    if (i + kLanes > n) std::copy(x + i, x + n, padded);
    return S::Load(i + kLanes > n ? padded : x + i);
  }
};

}  // namespace trellis
