// The oracle: one model and text, through libllama and through Trellis, compared.
//
// WHAT IS TRUE. A quantised file stands for the weights it dequantises to. Everything else that an
// implementation rounds (activations, keys and values, sums) is its own noise, and the truth is
// what libllama computes from the dequantised weights in f32. So both implementations are measured
// from the same point, neither from the other.
//
// TOLERANCE. libllama quantises activations to 8 bits too, under one scale per 32 or 256 values as
// we do, so its distance from the truth is the size that this noise has on this model and text.
// Ours is as large at most. Limits:
//   mean KL  1.25 x libllama's + kKlFloor. Two noises of one size, summed over many rows, differ by
//            less; another scheme (say, 7 bits where there were 8) is four times as far off.
//            With keys and values in 8 bits 1.5 x: libllama has a scale for each 32 of a row, but
//            rounds queries to 8 bits as well; which of the two costs more depends on the model.
//   max KL   5 x libllama's + 100 x kKlFloor. The largest of some hundred draws scatters widely;
//            what is wrong at one position alone (a page's border, a window's end) is beyond it.
//   top 1    as many disagreements as chance explains (MaxDisagreements).
// libllama is run in two settings that differ in its kernels, batch and, unless keys and values
// have 8 bits, attention; the noisier one counts, and the distance between the two is printed
// beside.
//
// kKlFloor is the noise that is left when the weights are floats: keys and values are f16, with a
// relative error of 2^-11 / sqrt(3) = 2.8e-4. Some ten such errors in a row, added, on logits that
// spread by 3, move each by 3e-3, and KL = variance / 2 = 4e-6.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"
#include "kernels/kernels.h"

namespace trellis {

inline constexpr double kKlFloor = 4e-6;

struct Subject {
  std::string name;  // of the test, and of the files it makes
  std::string path;
  std::vector<TokenId> tokens;
  std::vector<const KernelTable*> kernels;
  std::string cached_truth = {};  // what it is kept as; empty: it is not
  // With float weights there is only kKlFloor between us and the truth, whatever libllama does.
  enum class Weights { kFloat, kQuantized } weights = Weights::kQuantized;
  // Keys and values: of both as they keep them where nobody says otherwise, or of both in 8 bits.
  // Then both rotate them, and libllama, which has a scale for each 32, rounds queries to 8 bits,
  // too.
  enum class Kv { kDefault, kQ8_0 } kv = Kv::kDefault;
};

// Prints a table of what was measured; EXPECTs that it is within the tolerance.
void CheckAgainstLlama(const Subject& subject);

}  // namespace trellis
