// What runs here, and is tested with the other tables, is all of the AMX matmul but its tiles.
#include "kernels/matmul_emulated.h"

#if defined(__x86_64__)

#include <cstring>

#include "base/check.h"
#include "kernels/matmul_amx.h"

namespace trellis {
namespace {

// As Intel's manual has it: a tile is as large as its configuration says, and what a load leaves of
// it is zero.
class EmulatedTiles {
 public:
  static void Configure(const TileConfig& config) {
    config_ = config;
    std::memset(tiles_, 0, sizeof(tiles_));
  }
  static void Release() { config_ = {}; }

  template <int kTile>
  static void Zero() {
    TRELLIS_CHECK(config_.rows[kTile] > 0);
    std::memset(tiles_[kTile], 0, sizeof(tiles_[kTile]));
  }
  template <int kTile>
  static void Load(const void* p, size_t stride) {
    Zero<kTile>();
    for (size_t r = 0; r < config_.rows[kTile]; r++) {
      std::memcpy(tiles_[kTile][r], static_cast<const std::byte*>(p) + r * stride,
                  config_.row_bytes[kTile]);
    }
  }
  template <int kTile>
  static void Store(void* p, size_t stride) {
    for (size_t r = 0; r < config_.rows[kTile]; r++) {
      std::memcpy(static_cast<std::byte*>(p) + r * stride, tiles_[kTile][r],
                  config_.row_bytes[kTile]);
    }
  }
  template <int kSum, int kA, int kB>
  static void AddUnsigned() {
    Add<kSum, kA, kB, uint8_t>();
  }
  template <int kSum, int kA, int kB>
  static void AddSigned() {
    Add<kSum, kA, kB, int8_t>();
  }

 private:
  template <int kSum, int kA, int kB, typename B>
  static void Add() {
    TRELLIS_CHECK(config_.rows[kSum] == config_.rows[kA]);
    TRELLIS_CHECK(config_.row_bytes[kSum] == config_.row_bytes[kB]);
    TRELLIS_CHECK(config_.row_bytes[kA] == 4 * config_.rows[kB]);
    for (size_t m = 0; m < config_.rows[kSum]; m++) {
      for (size_t n = 0; n < config_.row_bytes[kSum] / 4u; n++) {
        int32_t sum;
        std::memcpy(&sum, tiles_[kSum][m] + 4 * n, sizeof(sum));
        for (size_t k = 0; k < config_.row_bytes[kA]; k++) {
          sum += static_cast<int8_t>(tiles_[kA][m][k]) *
                 static_cast<B>(tiles_[kB][k / 4][4 * n + k % 4]);
        }
        std::memcpy(tiles_[kSum][m] + 4 * n, &sum, sizeof(sum));
      }
    }
  }

  static thread_local TileConfig config_;
  static thread_local std::byte tiles_[8][AmxTiles::kRows][AmxTiles::kRowBytes];
};

thread_local TileConfig EmulatedTiles::config_;
thread_local std::byte EmulatedTiles::tiles_[8][AmxTiles::kRows][AmxTiles::kRowBytes];

}  // namespace

MatmulKernels EmulatedAmxMatmulKernels() {
  MatmulKernels kernels = Avx512MatmulKernels();
  kernels.matmul = MatmulWithTiles<EmulatedTiles>;
  return kernels;
}

}  // namespace trellis

#endif  // __x86_64__
