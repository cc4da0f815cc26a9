// A few queries over the pages of a visit, of f16 or bf16 keys and values, for a vector type S of
// simd_*.h: scores, softmax (attention_softmax.h), weighted sum of values; and how such pages are
// written.
//
// A tile is up to kRows queries, in registers. What a query computes is the same for every
// tile it may be part of: each score is one chain of multiply-adds over the dimensions, each
// dimension of the sum one chain over the keys.
#pragma once

#include <cmath>

#include "base/half.h"
#include "kernels/attention_softmax.h"

namespace trellis {

template <typename S, KvType kType>  // of integers: attention_tile_integers.h
struct AttentionTile {
  using F = typename S::F;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr size_t kRows = S::kTileRows;
  static_assert(kPageTokens % kLanes == 0 && kRows <= kMaxTileRows);

  // What head_dim numbers of a query, at its q, become; `to` has room for as many integers, and for
  // those that fill the last vector.
  static void Prepare(size_t, float*, int16_t*, AttentionQuery*) {}
  // What the sum of values [head_dim] becomes; returns a factor that is still missing.
  static float Finish(size_t, float*) { return 1; }

  // kN queries, all of which see something of the visit. scores: [kN, kVisitTokens].
  template <size_t kN>
  static void Visit(float cap, size_t head_dim, const PageVisit& visit,
                    AttentionQuery* const* queries, float* scores) {
    typename AttentionSoftmax<S>::Each alphas;
    Scores<kN>(head_dim, visit, queries, scores);
    AttentionSoftmax<S>::template Weigh<kN, false>(cap, visit, queries, scores, alphas, nullptr);
    Accumulate<kN>(head_dim, visit, queries, scores, alphas);
  }

  // Row t of the page's K and V, [head_dim] each.
  static void Write(const PageLayout& layout, size_t t, const float* k, const float* v,
                    std::byte* keys, std::byte* values, float*) {
    const auto at = [](std::byte* p, size_t i) { return reinterpret_cast<uint16_t*>(p) + i; };
    for (size_t d = 0; d < layout.head_dim; d += kLanes) {
      const size_t n = layout.head_dim - d < kLanes ? layout.head_dim - d : kLanes;
      Narrow(k + d, n,
             [&](size_t i, uint16_t bits) { *at(keys, layout.k_index(t, d + i)) = bits; });
      Narrow(v + d, n,
             [&](size_t i, uint16_t bits) { *at(values, layout.v_index(t, d + i)) = bits; });
    }
  }

 private:
  static constexpr size_t kBytes = sizeof(uint16_t);  // of an element

  static const uint16_t* Elements(const std::byte* p) {
    return reinterpret_cast<const uint16_t*>(p);
  }
  static F Load(const uint16_t* p) {
    return kType == KvType::kF16 ? S::LoadHalf(p) : S::LoadBf16(p);
  }
  static float LoadOne(uint16_t bits) {
    return kType == KvType::kF16 ? HalfToFloat(bits) : Bf16ToFloat(bits);
  }

  // acc[r][v] += a[r] * b[v] for one step of the depth, the fewer of a and b held in registers.
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
  [[gnu::noinline]] static void Scores(size_t head_dim, const PageVisit& visit,
                                       AttentionQuery* const* queries, float* scores) {
    constexpr size_t kV = TileVectors(kN, S::kAccumulators, kPageTokens / kLanes);
    const float* q[kN];
    TRELLIS_UNROLL
    for (size_t r = 0; r < kN; r++) q[r] = queries[r]->q;
    for (size_t key = visit.first_page * kPageTokens; key < visit.num_pages * kPageTokens;
         key += kV * kLanes) {
      F acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) acc[r][v] = S::Set(0);
      }
      const uint16_t* keys = Elements(visit.pages[key / kPageTokens].keys) + key % kPageTokens;
      const std::byte* next =
          visit.next[key / kPageTokens].keys + key % kPageTokens * head_dim * kBytes;
      for (size_t d = 0; d < head_dim; d++, next += kV * kLanes * kBytes) {
        PrefetchBytes<kV * kLanes * kBytes>(next);
        Step(
            acc, [&](size_t r) { return S::Set(q[r][d]); },
            [&](size_t v) { return Load(keys + d * kPageTokens + v * kLanes); });
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++)
          S::Store(scores + r * kVisitTokens + key + v * kLanes, acc[r][v]);
      }
    }
  }

  template <size_t kN, size_t kV>
  static void AccumulateColumns(size_t head_dim, size_t* d, const PageVisit& visit,
                                AttentionQuery* const* queries, const float* weights,
                                const float* alphas) {
    for (; *d + kV * kLanes <= head_dim; *d += kV * kLanes) {
      F acc[kN][kV];
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        const F alpha = S::Set(alphas[r]);
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++)
          acc[r][v] = S::Mul(S::Load(queries[r]->acc + *d + v * kLanes), alpha);
      }
      for (size_t page = visit.first_page; page < visit.num_pages; page++) {
        const uint16_t* values = Elements(visit.pages[page].values) + *d;
        const std::byte* next = visit.next[page].values + *d * kPageTokens * kBytes;
        const float* from = weights + page * kPageTokens;
        for (size_t t = 0; t < visit.num_valid_of(page); t++, next += kV * kLanes * kBytes) {
          PrefetchBytes<kV * kLanes * kBytes>(next);
          Step(
              acc, [&](size_t r) { return S::Set(from[r * kVisitTokens + t]); },
              [&](size_t v) { return Load(values + t * head_dim + v * kLanes); });
        }
      }
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) {
        TRELLIS_UNROLL
        for (size_t v = 0; v < kV; v++) S::Store(queries[r]->acc + *d + v * kLanes, acc[r][v]);
      }
    }
    if constexpr (kV > 1)
      AccumulateColumns<kN, kV / 2>(head_dim, d, visit, queries, weights, alphas);
  }

  template <size_t kN>
  [[gnu::noinline]] static void Accumulate(size_t head_dim, const PageVisit& visit,
                                           AttentionQuery* const* queries, const float* weights,
                                           const float* alphas) {
    constexpr size_t kV = TileVectors(kN, S::kAccumulators, 8);
    size_t d = 0;
    AccumulateColumns<kN, kV>(head_dim, &d, visit, queries, weights, alphas);
    for (; d < head_dim; d++) {  // head_dim 8 or 24 on 16 lanes
      for (size_t r = 0; r < kN; r++) {
        float acc = queries[r]->acc[d] * alphas[r];
        for (size_t t = visit.first_page * kPageTokens; t < visit.num_valid; t++) {
          const uint16_t* values = Elements(visit.pages[t / kPageTokens].values);
          acc = std::fma(weights[r * kVisitTokens + t],
                         LoadOne(values[t % kPageTokens * head_dim + d]), acc);
        }
        queries[r]->acc[d] = acc;
      }
    }
  }

  // Gives put(i, bits) element i of x, i < n <= kLanes.
  template <typename Put>
  static void Narrow(const float* x, size_t n, const Put& put) {
    float padded[kLanes] = {};
    uint16_t bits[kLanes];
    for (size_t i = 0; i < n && n < kLanes; i++) padded[i] = x[i];
    constexpr float kMost = kType == KvType::kF16 ? kMaxHalf : kMaxBf16Kv;
    const F kept = FiniteWithin<S>(S::Load(n == kLanes ? x : padded), kMost);
    if constexpr (kType == KvType::kF16) {
      S::StoreHalf(bits, kept);
    } else {
      S::Store(padded, kept);
      for (size_t i = 0; i < kLanes; i++) bits[i] = FloatToBf16(padded[i]);
    }
    for (size_t i = 0; i < n; i++) put(i, bits[i]);
  }
};

}  // namespace trellis
