// AMX's matmul: the loop over tiles of products (matmul_amx_products.h). Internal to kernels/; for
// translation units compiled for AVX-512. Tests run it on emulated tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>

#include "base/check.h"
#include "kernels/kernels_internal.h"
#include "kernels/matmul_amx_products.h"
#include "kernels/matmul_blocked.h"
#include "kernels/tiles_amx.h"
#include "kernels/unroll.h"

namespace trellis {
namespace {

template <typename Tiles>
struct AmxMatmul {
  // Of whole blocks.
  template <PackedType kType>
  using Whole = std::conditional_t<FormFor(kType) == ActivationForm::kPerBlock,
                                   BlockProducts<Tiles, kType>, GroupProducts<Tiles, kType, true>>;

  static constexpr size_t DirectRows(PackedType) { return 0; }

  template <PackedType kType>
  static void Unpack(const std::byte* block, size_t groups, std::byte* to) {
    Whole<kType>::Unpack(block, groups, to);
  }

  // At least kTileRows rows.
  template <PackedType kType>
  static void Block(const TileInput& in, float* sums, size_t num_rows) {
    TRELLIS_DCHECK(num_rows >= kTileRows);
    if constexpr (FormFor(kType) == ActivationForm::kPerBlock) {
      InTurns(Whole<kType>(in), sums, num_rows);
    } else if constexpr (FormFor(kType) == ActivationForm::kPerGroup) {
      if (in.groups == kGroupsPerBlock) {
        InTurns(Whole<kType>(in), sums, num_rows);
      } else {
        TileByTile(GroupProducts<Tiles, kType, false>(in), sums, num_rows);
      }
    }
  }

 private:
  // A tile of products: kTileRows rows from `row` on, of which those before `done` have their sums.
  struct Position {
    size_t row, half, done;
  };

  // The last tile reaches back over rows that are done.
  template <typename Products>
  static Position At(size_t tile, size_t num_rows) {
    const size_t done = tile / Products::kTilesOfRow * kTileRows;
    return {std::min(done, num_rows - kTileRows), tile % Products::kTilesOfRow, done};
  }
  template <typename Products>
  static size_t NumTiles(size_t num_rows) {
    return (num_rows + kTileRows - 1) / kTileRows * Products::kTilesOfRow;
  }

  // While a tile is multiplied the one before takes its scales. By value: no store of sums can
  // change it.
  template <typename Products>
  [[gnu::noinline]] static void InTurns(const Products products, float* sums, size_t num_rows) {
    alignas(64) std::byte buffers[2][Products::kSumBytes];
    Position at = At<Products>(0, num_rows);
    Unrolled<Products::kSteps>([&](auto step) __attribute__((always_inline)) {
      products.template Multiply<step, false>(at.row, at.half, buffers[1], buffers[0]);
    });
    const size_t num_tiles = NumTiles<Products>(num_rows);
    for (size_t tile = 1; tile < num_tiles; tile++) {
      const Position next = At<Products>(tile, num_rows);
      std::byte *before = buffers[(tile - 1) % 2], *now = buffers[tile % 2];
      Unrolled<Products::kSteps>([&](auto step) __attribute__((always_inline)) {
        products.template Multiply<step, true>(next.row, next.half, before, now);
        constexpr size_t kTurns = Products::kSteps - Products::kLag;
        constexpr size_t kTurn = step < Products::kLag ? 0 : step - Products::kLag + 1;
        constexpr size_t kBefore = kTurn > 0 ? kTurn - 1 : 0;
        Finish(products, at, kBefore * kTileRows / kTurns, kTurn * kTileRows / kTurns, before,
               sums);
      });
      at = next;
    }
    std::byte* last = buffers[(num_tiles - 1) % 2];
    products.Store(last);
    Finish(products, at, 0, kTileRows, last, sums);
  }

  template <typename Products>
  [[gnu::noinline]] static void TileByTile(const Products products, float* sums, size_t num_rows) {
    alignas(64) std::byte buffers[2][Products::kSumBytes];
    const size_t num_tiles = NumTiles<Products>(num_rows);
    for (size_t tile = 0; tile <= num_tiles; tile++) {
      if (tile < num_tiles) {
        const Position next = At<Products>(tile, num_rows);
        products.MultiplyAll(next.row, next.half, buffers[tile % 2]);
      }
      if (tile > 0) {
        const Position at = At<Products>(tile - 1, num_rows);
        Finish(products, at, 0, kTileRows, buffers[(tile - 1) % 2], sums);
      }
    }
  }

  // Rows [begin, end) of the tile.
  template <typename Products>
  [[gnu::always_inline]] static void Finish(const Products& products, const Position& at,
                                            size_t begin, size_t end, const std::byte* buffer,
                                            float* sums) {
    for (size_t r = begin; r < end; r++) {
      const size_t row = at.row + r;
      if (row < at.done) continue;
      products.Finish(row, at.half, buffer + r * AmxTiles::kRowBytes, sums + row * kPanelOutputs);
    }
  }
};

// MatmulKernels::matmul. Fewer rows than a tile has, and float weights, are AVX-512's.
template <typename Tiles>
void MatmulWithTiles(const PackedMatrix& w, const Activations& x, size_t row_begin, size_t row_end,
                     size_t panel_begin, size_t panel_end, const float* bias, float* out,
                     size_t out_stride, std::byte* scratch) {
  const auto run = [&](auto matmul) {
    matmul(w, x, row_begin, row_end, panel_begin, panel_end, bias, out, out_stride, scratch);
  };
  if (FormFor(w.type) == ActivationForm::kF32 || row_end - row_begin < kTileRows)
    return run(Avx512MatmulKernels().matmul);
  WithType(w.type, [&](auto type) {
    if constexpr (FormFor(type) != ActivationForm::kF32) {
      Tiles::Configure(AmxMatmul<Tiles>::template Whole<type>::kConfig);
      run(BlockedMatmul<AmxMatmul<Tiles>>::Matmul);
      Tiles::Release();
    }
  });
}

}  // namespace
}  // namespace trellis
