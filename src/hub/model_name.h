// What models are called: on a hub ("user/repo:quant"), and as GGUF files.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace trellis {

// "user/repo:quant" of a hub; without ":quant" that is empty.
struct ModelReference {
  std::string repo;   // "user/repo"
  std::string quant;  // as written: Q4_K_M, q8_0, UD-Q4_K_XL
};

// Nothing if `text` is not of that form: other names, and paths that go up or down elsewhere.
std::optional<ModelReference> ParseModelReference(std::string_view text);

// What the name of a GGUF file says, by llama.cpp's conventions.
struct GgufName {
  std::string stem;   // the path without "-00001-of-0000N" and ".gguf"
  std::string quant;  // in capitals: Q4_K_M; what follows the last "-" or "." of the stem, or empty
  size_t part = 1, num_parts = 1;
};

// Nothing if it does not end in ".gguf", or is no model's weights (mmproj, imatrix, ...).
std::optional<GgufName> ParseGgufName(std::string_view path);

// Of `paths`, those that the model with this quantisation has, in the order of its parts. An empty
// one is Q4_K_M, else Q8_0, else that of the first model.
// ERRORS: kNotFound, naming what there is instead; kDataLoss: parts are missing.
Result<std::vector<std::string>> ChooseModel(const std::vector<std::string>& paths,
                                             const std::string& quant);

}  // namespace trellis
