// How the integers of a page are multiplied, for a vector type S of simd_*.h: what differs between
// the types that attention_tile_integers.h serves.
//
// Sums of products are exact: integers of 32 bits that cannot overflow in the end; on the way there
// they may, which changes nothing.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "base/page_layout.h"
#include "kernels/unroll.h"

namespace trellis {

// Of a row of numbers: largest magnitude, Euclidean norm.
struct RowSize {
  float most, norm;
};

template <typename S, KvType kType>
struct AttentionProducts;

// A key is 15 bits and sign, and so is a query: |q . k| <= |q| |k| < 2^31. A value is 14 bits and
// sign, the weights of a visit are as large as their sum allows. x86 multiplies pairs and adds the
// two products at twice the rate of f32.
template <typename S>
struct AttentionProducts<S, KvType::kI16> {
  using F = typename S::F;
  using Element = int16_t;
  using Sum = typename S::I;  // of kLanes keys, or dimensions
  static constexpr size_t kLanes = S::kLanes;
  static constexpr bool kRotates = false;

  static float KeyScale(const RowSize& k) {
    return std::max(k.most / I16Rows::kKeyMost, k.norm / I16Rows::kKeyNorm);
  }
  static float ValueScale(const RowSize& v) { return v.most / I16Rows::kValueMost; }
  // Times kKeyNorm, with what rounding adds, sqrt(head_dim) / 2 each, this is below 2^31.
  static float QueryUnit(const RowSize& q, size_t) { return q.norm / 32500; }
  // So is 130000 times kValueMost.
  static float WeightUnit(float sum, float most) { return std::max(sum / 130000, most / 32767); }

  static Element FromInteger(int16_t x) { return x; }

  // Rounds elements i .. of a query or of weights, n in all, and stores them where Add() wants
  // them; adds them to *sum where Offset() needs that.
  static void Store(int16_t* to, size_t, size_t i, F v, F*) { S::StoreInt16(to + i, v); }
  static int32_t Offset(float) { return 0; }
  static int32_t Product(const int16_t* a, size_t, size_t i, Element b) { return a[i] * b; }

  static Sum Start(int32_t) { return S::ZeroI(); }
  static typename S::I Total(Sum sum) { return sum; }

  // acc[r][v] += the integers of a[r] from i on, as many as lie together, times vector v of b.
  template <size_t kN, size_t kV>
  [[gnu::always_inline]] static void Add(Sum (&acc)[kN][kV], const int16_t* const (&a)[kN], size_t,
                                         size_t i, const std::byte* b) {
    constexpr size_t kVectorBytes = sizeof(typename S::I);
    if constexpr (kV == 1) {
      const auto b0 = S::LoadPairs(b);
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) S::AddPairs(a[r] + i, b0, acc[r][0]);
    } else {
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v += 2) {
        const auto b0 = S::LoadPairs(b + v * kVectorBytes);
        const auto b1 = S::LoadPairs(b + (v + 1) * kVectorBytes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++) S::AddPairs(a[r] + i, b0, b1, acc[r][v], acc[r][v + 1]);
      }
    }
  }
};

// Keys and values are 7 bits and sign, queries and weights 15: bytes lie as b + 128, so that no
// sign need be extended, and sums begin with -128 times that of a. Every four of b are multiplied
// in two parts, which S chooses.
template <typename S>
struct AttentionProducts<S, KvType::kQ8_0> {
  using F = typename S::F;
  using Element = uint8_t;
  using Sum = typename S::ByteSum;
  static constexpr size_t kLanes = S::kLanes;
  static constexpr bool kRotates = true;

  static float KeyScale(const RowSize& k) { return k.most / Q8Rows::kMost; }
  static float ValueScale(const RowSize& v) { return v.most / Q8Rows::kMost; }
  // A key's norm is at most 127 sqrt(head_dim). The integers of a query add up to sqrt(head_dim)
  // times its norm at most, those of weights to less: below 2^24, so that sums in f32 are exact.
  static float QueryUnit(const RowSize& q, size_t head_dim) {
    const float norm = 0x1.f8p30f / (Q8Rows::kMost * std::sqrt(static_cast<float>(head_dim)));
    return std::max(q.most / kMost, q.norm / norm);
  }
  static float WeightUnit(float, float most) { return most / kMost; }

  static Element FromInteger(int16_t x) { return static_cast<uint8_t>(x + Q8Rows::kZero); }

  static void Store(int16_t* to, size_t n, size_t i, F v, F* sum) {
    const F rounded = S::Round(v);
    S::StoreParts(to, PartBytes(n), i, rounded);
    *sum = S::Add(*sum, rounded);
  }
  static int32_t Offset(float sum) {
    return static_cast<int32_t>(int64_t{-Q8Rows::kZero} * static_cast<int64_t>(sum));
  }
  static int32_t Product(const int16_t* a, size_t n, size_t i, Element b) {
    return S::PartsAt(a, PartBytes(n), i) * (b - Q8Rows::kZero);
  }

  static Sum Start(int32_t offset) { return S::StartBytes(offset); }
  static typename S::I Total(const Sum& sum) { return S::Total(sum); }

  template <size_t kN, size_t kV>
  [[gnu::always_inline]] static void Add(Sum (&acc)[kN][kV], const int16_t* const (&a)[kN],
                                         size_t n, size_t i, const std::byte* b) {
    AddPart<0>(acc, a, i, b);
    AddPart<1>(acc, a, PartBytes(n) + i, b);
  }

 private:
  // Both bytes of what S splits in bytes are signed: 127 * 256 + 127.
  static constexpr float kMost = 32639;

  // Whole vectors of bytes, whatever S. Two parts take up to 8 integers more than there are.
  static constexpr size_t PartBytes(size_t n) { return (n + 15) / 16 * 16; }

  template <int kPart, size_t kN, size_t kV>
  [[gnu::always_inline]] static void AddPart(Sum (&acc)[kN][kV], const int16_t* const (&a)[kN],
                                             size_t byte, const std::byte* b) {
    constexpr size_t kVectorBytes = sizeof(typename S::I);
    const auto at = [&](size_t r) {
      return reinterpret_cast<const int16_t*>(reinterpret_cast<const std::byte*>(a[r]) + byte);
    };
    if constexpr (kV == 1) {
      const auto b0 = S::template LoadBytes<kPart>(b);
      TRELLIS_UNROLL
      for (size_t r = 0; r < kN; r++) S::template AddBytes<kPart>(at(r), b0, acc[r][0]);
    } else {
      TRELLIS_UNROLL
      for (size_t v = 0; v < kV; v += 2) {
        const auto b0 = S::template LoadBytes<kPart>(b + v * kVectorBytes);
        const auto b1 = S::template LoadBytes<kPart>(b + (v + 1) * kVectorBytes);
        TRELLIS_UNROLL
        for (size_t r = 0; r < kN; r++)
          S::template AddBytes<kPart>(at(r), b0, b1, acc[r][v], acc[r][v + 1]);
      }
    }
  }
};

}  // namespace trellis
