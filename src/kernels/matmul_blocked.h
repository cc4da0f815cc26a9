// The loops of a matmul for instruction sets S whose tiles keep their f32 sums in memory. Internal
// to kernels/.
//
// BLOCKING. A block of a panel (256 depths x 32 outputs) is unpacked to bytes, 8 KiB that stay in
// L1, and all rows go over it in tiles of S::kTileRows; their sums wait in scratch from block to
// block.
//
// S::Unpack<type>(block, groups, bytes) unpacks a block of a quantised type to [quad][output][4] in
// whatever form S::Tile reads; S::Tile<type, rows>(in, sums) adds the products of one block to sums
// [rows, kPanelOutputs].
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels/matmul_rows.h"
#include "kernels/packed_format.h"

namespace trellis {

struct TileInput {
  const uint8_t* bytes;    // the block, unpacked
  const std::byte* block;  // and as it is
  size_t groups;
  TileRows rows;   // quantised types
  const float* x;  // float types: the first row, at the block
  size_t x_stride;
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
                    .bytes = reinterpret_cast<uint8_t*>(sums + kScratchRows * kPanelOutputs)};
    WithType(w.type, [&](auto type) {
      for (size_t panel = panel_begin; panel < panel_end; panel++) {
        for (size_t row = row_begin; row < row_end; row += kScratchRows) {
          Panel<decltype(type)::value>(call, panel, row, std::min(kScratchRows, row_end - row));
        }
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
    uint8_t* bytes;
  };

  template <PackedType kType>
  static void Panel(const Call& call, size_t panel, size_t row, size_t num_rows) {
    std::fill(call.sums, call.sums + num_rows * kPanelOutputs, 0.0f);
    const std::byte* block = call.w.panels + panel * call.w.panel_bytes();
    for (size_t b = 0; b < BlocksFor(call.w.depth); b++) {
      const size_t groups = packed::GroupsInBlock(call.w.depth, b);
      if constexpr (FormFor(kType) != ActivationForm::kF32)
        S::template Unpack<kType>(block, groups, call.bytes);
      size_t r = 0;
      for (; r + S::kTileRows <= num_rows; r += S::kTileRows)
        Tile<kType, S::kTileRows>(call, block, b, row, r);
      TailTile<kType, S::kTileRows - 1>(call, block, b, row, r, num_rows - r);
      block += packed::BlockBytes(kType, groups);
    }
    WriteRows(call, panel, row, num_rows);
  }

  // The last `num_rows` <= kRows rows.
  template <PackedType kType, int kRows>
  static void TailTile(const Call& call, const std::byte* block, size_t b, size_t row, size_t r,
                       size_t num_rows) {
    if constexpr (kRows > 0) {
      if (num_rows == kRows) return Tile<kType, kRows>(call, block, b, row, r);
      TailTile<kType, kRows - 1>(call, block, b, row, r, num_rows);
    }
  }

  // Rows row + r and following over block b. Not inlined: registers are for this alone.
  template <PackedType kType, int kRows>
  [[gnu::noinline]] static void Tile(const Call& call, const std::byte* block, size_t b, size_t row,
                                     size_t r) {
    TileInput in{.bytes = call.bytes,
                 .block = block,
                 .groups = packed::GroupsInBlock(call.w.depth, b),
                 .rows = {},
                 .x = nullptr,
                 .x_stride = call.x.f32_stride};
    if constexpr (FormFor(kType) == ActivationForm::kF32) {
      in.x = call.x.f32 + (row + r) * call.x.f32_stride + b * kBlockDepth;
    } else {
      in.rows = TileRowsAt(call.x.quantized(kType), row + r, b);
    }
    S::template Tile<kType, kRows>(in, call.sums + r * kPanelOutputs);
  }

  static void WriteRows(const Call& call, size_t panel, size_t row, size_t num_rows) {
    const size_t begin = panel * kPanelOutputs;
    const size_t num = std::min(kPanelOutputs, call.w.num_outputs - begin);
    for (size_t r = 0; r < num_rows; r++) {
      const float* sums = call.sums + r * kPanelOutputs;
      float* to = call.out + (row + r) * call.out_stride + begin;
      if (call.bias == nullptr) {
        std::memcpy(to, sums, num * sizeof(float));
      } else {
        for (size_t i = 0; i < num; i++) to[i] = sums[i] + call.bias[begin + i];
      }
    }
  }
};

}  // namespace trellis
