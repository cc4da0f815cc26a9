// AMX: eight tiles of 16 rows x 64 bytes, and products of two of them. Internal to kernels/; for
// translation units compiled for it. In assembly: compilers' intrinsics do not say what memory a
// tile is loaded from.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trellis {
namespace {

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

struct AmxTiles {
  static constexpr size_t kRows = 16, kRowBytes = 64;

  static void Configure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  static void Release() { asm volatile("tilerelease"); }

  template <int kTile>
  static void Zero() {
    asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
  }
  // Row r lies at p + r * stride bytes.
  template <int kTile>
  static void Load(const void* p, size_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  template <int kTile>
  static void Store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(kTile) : "memory");
  }
  // kSum [m][n] i32 += dot of the four bytes kA[m][4 k..] and kB[k][4 n..], for all k; a signed, b
  // unsigned or signed.
  template <int kSum, int kA, int kB>
  static void AddUnsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }
  template <int kSum, int kA, int kB>
  static void AddSigned() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
  }
};

}  // namespace
}  // namespace trellis
