#include "sched/chunk_size.h"

#include <algorithm>

#include "base/check.h"

namespace trellis {
namespace {

constexpr double kMostGrowth = 1.25, kLeastGrowth = 0.5;
constexpr size_t kTellingRows = 64;   // fewer rows of a prompt say little of what many cost
constexpr double kWeightOfOne = 0.1;  // of one step without a prompt among others
constexpr double kMargin = 0.8;       // a mixed step costs more than its rows of prompts

}  // namespace

ChunkSize::ChunkSize(const Options& options)
    : options_(options), rows_(static_cast<double>(options.first)) {
  TRELLIS_CHECK(options.least >= 1 && options.least <= options.most);
}

void ChunkSize::Observe(const Step& step) {
  const double took = step.took.count();
  if (options_.target.count() <= 0 || took <= 0) return;
  if (step.num_prompt == 0) {
    decode_seconds_ += (decode_seconds_ == 0 ? 1 : kWeightOfOne) * (took - decode_seconds_);
    return;
  }
  const double target = Target();
  if (step.num_decoding == 0) {
    if (known_ == Known::kMixed || step.num_prompt < kTellingRows) return;
    known_ = Known::kPrompts;
    return Set(kMargin * target * static_cast<double>(step.num_prompt) / took);
  }
  known_ = Known::kMixed;
  const double num_rows = static_cast<double>(step.num_decoding + step.num_prompt);
  const double growth = std::clamp(target / took, kLeastGrowth, kMostGrowth);
  if (growth < 1) {
    Set(std::min(rows_, num_rows * growth));
  } else if (num_rows >= static_cast<double>(rows())) {
    Set(rows_ * growth);
  }
}

double ChunkSize::Target() const {
  return std::max(options_.target.count(), 2 * decode_seconds_);
}

void ChunkSize::Set(double rows) {
  rows_ = std::clamp(rows, static_cast<double>(options_.least), static_cast<double>(options_.most));
}

}  // namespace trellis
