// Packing: rows of a GGUF tensor -> panels (matmul.h). Done once, at load, by many threads: panels
// are independent.
//
// The block formats of GGUF's tensor types are those of ggml (ggml-common.h of llama.cpp,
// block_q4_0 and the others); the types that a packed type holds without loss are read here, all
// others come as f32 rows from the caller's `dequantize`.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/matmul.h"

namespace trellis {

// ggml's numbering (enum ggml_type), for the types that packing reads itself.
enum class GgufType : int32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kBF16 = 30,
  kMXFP4 = 39,
};

// The packed type for weights of ggml type `ggml_type` (any value of enum ggml_type).
PackedType PackedTypeFor(int32_t ggml_type);

// A tensor [num_outputs, depth] as it lies in the file.
struct PackSource {
  int32_t ggml_type = 0;
  const std::byte* rows = nullptr;
  size_t row_bytes = 0;
  size_t num_outputs = 0;
  size_t depth = 0;
  // ggml's to_float of the type: writes n values. Used for the types that GgufType does not list.
  void (*dequantize)(const void* row, float* values, int64_t n) = nullptr;
};

// Writes panels [panel_begin, panel_end) of `source` as `type` to `panels` (the tensor's first
// panel; 64-byte aligned). Outputs beyond num_outputs are zero weights. REQUIRES: type is
// PackedTypeFor(source.ggml_type); depth is a multiple of kGroupDepth, of kBlockDepth for K-types
// (as in every GGUF file).
void PackPanels(const PackSource& source, PackedType type, size_t panel_begin, size_t panel_end,
                std::byte* panels);

// The weights that a packed matrix stands for: [w.num_outputs, w.depth] f32. The oracle of tests
// and of error measurements.
void UnpackWeights(const PackedMatrix& w, float* values);

}  // namespace trellis
