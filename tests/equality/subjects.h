// What the equality tests run on: models on instruction sets, and the logits of a cold run, which
// everything else has to reproduce bit for bit.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "model/model.h"
#include "os/compute_pool.h"
#include "support/sequence_run.h"

namespace trellis {

enum class ModelKind {
  kSmolLm2,     // the real thing, 4-bit weights
  kTinyGemma3,  // random weights, layers with a window of 70 positions and without
  kTinyKTypes,  // random weights in blocks of 256, two types of them
};

struct SubjectId {
  ModelKind kind;
  const KernelTable* kernels;
  std::optional<KvType> kv_type = {};  // nothing: as LoadOptions
};
// All models on all instruction sets, with every type of keys and values; on the scalar kernels,
// which would take minutes, the smallest.
std::vector<SubjectId> AllSubjects();
std::string SubjectName(const SubjectId& id);
void PrintTo(const SubjectId& id, std::ostream* out);

// A loaded model with its threads, and text for it.
struct Subject {
  std::unique_ptr<ComputePool> pool;
  std::unique_ptr<Model> model;
  Tokens text;  // 144 tokens; 560 of a tiny model: decoding them splits attention into segments

  // `text` turned by 13 * `index` tokens: shares no prefix with the others.
  Tokens Turned(size_t index, size_t length) const;
};
// ERRORS: those of loading.
Result<Subject> LoadSubject(const SubjectId& id, size_t num_threads);

// Logits of every position of one sequence.
class ColdRun {
 public:
  // In one chunk, in a cache of its own.
  ColdRun(Model& model, Tokens tokens);

  const Tokens& tokens() const { return tokens_; }
  const float* row(size_t r) const { return logits_.data() + r * vocab_size_; }
  // How many of rows [first, first + num_rows), whose logits were computed in another way, differ
  // in any bit.
  size_t CountDifferent(size_t first, size_t num_rows, const float* logits) const;

 private:
  const size_t vocab_size_;
  const Tokens tokens_;
  std::vector<float> logits_;
};

}  // namespace trellis
