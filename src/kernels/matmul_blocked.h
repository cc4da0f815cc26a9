// The loops of a matmul for instruction sets S whose tiles keep their f32 sums in memory. Internal
// to kernels/.
//
// BLOCKING. A block of a panel (256 depths x 32 outputs) is unpacked for more than
// S::DirectRows(type) rows, to a form that stays in L1, and all rows go over it; their sums wait in
// scratch from block to block.
//
// S::Unpack<type>(block, groups, to) unpacks a block of a quantised type to whatever form S::Block
// reads, at most kUnpackedBlockBytes; S::Block<type>(in, sums, num_rows) adds the products of one
// block to sums [num_rows, kPanelOutputs].
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"

namespace trellis {

inline constexpr size_t kCacheLine = 64;

struct TileInput {
  const std::byte* unpacked;  // the block, as S::Unpack left it; null: for few rows it did not
  const std::byte* block;     // and as it is
  const std::byte* next;      // the block behind it, of which this tile prefetches cache lines:
  bool next_alternates;       // every second one from here; or all; none if null
  size_t groups;
  bool is_first;   // sums are unset: they are those of this block alone
  TileRows rows;   // quantised types
  const float* x;  // float types: the first row, at the block
  size_t x_stride;
};

// S for sets whose Tiles::Tile<type, rows>(in, sums) adds the products of up to kTileRows rows.
template <typename Tiles>
struct InTiles : Tiles {
  template <PackedType kType>
  static void Block(TileInput in, float* sums, size_t num_rows) {
    size_t r = 0;
    // Two tiles share what there is to prefetch, or the memory would be idle during the second.
    in.next_alternates = num_rows > Tiles::kTileRows;
    for (; r + Tiles::kTileRows <= num_rows; r += Tiles::kTileRows) {
      Tiles::template Tile<kType, Tiles::kTileRows>(in, sums + r * kPanelOutputs);
      Advance<kType>(in);
      in.next = in.next_alternates && r == 0 ? in.next + kCacheLine : nullptr;
    }
    TailTile<kType, Tiles::kTileRows - 1>(in, sums + r * kPanelOutputs, num_rows - r);
  }

 private:
  template <PackedType kType>
  static void Advance(TileInput& in) {
    if constexpr (FormFor(kType) == ActivationForm::kF32) {
      in.x += Tiles::kTileRows * in.x_stride;
    } else {
      in.rows.Skip(Tiles::kTileRows);
    }
  }

  // The last `num_rows` <= kRows rows.
  template <PackedType kType, int kRows>
  static void TailTile(const TileInput& in, float* sums, size_t num_rows) {
    if constexpr (kRows > 0) {
      if (num_rows == kRows) return Tiles::template Tile<kType, kRows>(in, sums);
      TailTile<kType, kRows - 1>(in, sums, num_rows);
    }
  }
};

template <typename S>
class BlockedMatmul {
 public:
  static void Matmul(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
                     size_t panel_begin, size_t panel_end, const float* bias, float* out,
                     size_t out_stride, std::byte* scratch) {
    float* sums = reinterpret_cast<float*>(scratch);
    const Call call{.w = w,
                    .x = x,
                    .bias = bias,
                    .out = out,
                    .out_stride = out_stride,
                    .sums = sums,
                    .unpacked = scratch + kScratchRows * kPanelOutputs * sizeof(float)};
    // At a time: as few turns as scratch allows, all alike.
    const size_t num_rows = row_end - row_begin;
    const size_t turns = std::max<size_t>((num_rows + kScratchRows - 1) / kScratchRows, 1);
    const size_t rows = (num_rows + turns - 1) / turns;
    WithType(w.type, [&](auto type) {
      for (size_t panel = panel_begin; panel < panel_end; panel++) {
        for (size_t row = row_begin; row < row_end; row += rows)
          Panel<decltype(type)::value>(call, panel, row, std::min(rows, row_end - row));
      }
    });
  }

 private:
  struct Call {
    const PackedMatrix& w;
    const Activations& x;
    const float* bias;
    float* out;
    size_t out_stride;
    float* sums;  // [kScratchRows, kPanelOutputs]
    std::byte* unpacked;
  };

  template <PackedType kType>
  static void Panel(const Call& call, size_t panel, size_t row, size_t num_rows) {
    const std::byte* block = call.w.panels + panel * call.w.panel_bytes();
    const bool unpacks = num_rows > S::DirectRows(kType);
    for (size_t b = 0; b < BlocksFor(call.w.depth); b++) {
      const size_t groups = packed::GroupsInBlock(call.w.depth, b);
      TileInput in{.unpacked = unpacks ? call.unpacked : nullptr,
                   .block = block,
                   .next = block + packed::BlockBytes(kType, groups),
                   .next_alternates = false,
                   .groups = groups,
                   .is_first = b == 0,
                   .rows = {},
                   .x = nullptr,
                   .x_stride = call.x.f32_stride};
      if constexpr (FormFor(kType) == ActivationForm::kF32) {
        in.x = call.x.f32 + row * call.x.f32_stride + b * kBlockDepth;
      } else {
        in.rows = TileRowsAt(call.x.quantized(kType), row, b);
        if (unpacks) S::template Unpack<kType>(block, groups, call.unpacked);
      }
      S::template Block<kType>(in, call.sums, num_rows);
      block += packed::BlockBytes(kType, groups);
    }
    WriteRows(call, panel, row, num_rows);
  }

  static void WriteRows(const Call& call, size_t panel, size_t row, size_t num_rows) {
    const size_t begin = panel * kPanelOutputs;
    const size_t num = std::min(kPanelOutputs, call.w.num_outputs - begin);
    for (size_t r = 0; r < num_rows; r++) {
      const float* sums = call.sums + r * kPanelOutputs;
      float* to = call.out + (row + r) * call.out_stride + begin;
      const float* bias = call.bias == nullptr ? nullptr : call.bias + begin;
      if (num == kPanelOutputs) {  // of constant length: vectors
        WriteRow(sums, bias, kPanelOutputs, to);
      } else {
        WriteRow(sums, bias, num, to);
      }
    }
  }

  [[gnu::always_inline]] static void WriteRow(const float* sums, const float* bias, size_t num,
                                              float* to) {
    if (bias == nullptr) {
      for (size_t i = 0; i < num; i++) to[i] = sums[i];
    } else {
      for (size_t i = 0; i < num; i++) to[i] = sums[i] + bias[i];
    }
  }
};

}  // namespace trellis
