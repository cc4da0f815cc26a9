#include "api/sampler_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace trellis {
namespace {

// llama.cpp's (common/sampling.cpp), in its default order.
struct Stage {
  std::string_view name;
  char letter;
  enum class Runs { kHere, kNever } runs;
  std::string_view other_name = "";
};
constexpr std::array<Stage, 11> kStages = {{
    {"penalties", 'e', Stage::Runs::kHere},
    {"dry", 'd', Stage::Runs::kNever},
    {"top_n_sigma", 's', Stage::Runs::kNever},
    {"top_k", 'k', Stage::Runs::kHere},
    {"typ_p", 'y', Stage::Runs::kHere, "typ"},
    {"top_p", 'p', Stage::Runs::kHere, "nucleus"},
    {"min_p", 'm', Stage::Runs::kHere},
    {"xtc", 'x', Stage::Runs::kNever},
    {"temperature", 't', Stage::Runs::kHere, "temp"},
    {"infill", 'i', Stage::Runs::kNever},
    {"adaptive_p", 'a', Stage::Runs::kNever},
}};
constexpr std::string_view kOrder =
    "penalties, top_k, typ_p, top_p, min_p, temperature";  // of those that run here

// "top_k", "Top-K", "topk".
std::string Plain(std::string_view name) {
  std::string plain;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return plain;
}

const Stage* FindStage(std::string_view name) {
  const std::string plain = Plain(name);
  const auto found = std::find_if(kStages.begin(), kStages.end(), [&](const Stage& stage) {
    return plain == Plain(stage.name) || plain == stage.other_name;
  });
  return found == kStages.end() ? nullptr : &*found;
}

const Stage* FindLetter(char letter) {
  const auto found = std::find_if(kStages.begin(), kStages.end(),
                                  [&](const Stage& stage) { return stage.letter == letter; });
  return found == kStages.end() ? nullptr : &*found;
}

// Which stages are listed, by their place in kStages.
class Listed {
 public:
  explicit Listed(FieldReader& reader) : reader_(reader) {}

  void Add(const Stage* stage, std::string_view name, const std::string& param) {
    if (stage == nullptr) {
      return reader_.Fail(UnsupportedField(
          param, fmt::format("{}: there is no sampler \"{}\"", param, Excerpt(name))));
    }
    if (stage->runs == Stage::Runs::kHere && stage < last_) {
      return reader_.Fail(UnsupportedField(
          param, fmt::format("{}: {} cannot be behind {}: samplers run in the order {}", param,
                             stage->name, last_->name, kOrder)));
    }
    if (stage->runs == Stage::Runs::kHere) last_ = stage;
    has_[static_cast<size_t>(stage - kStages.data())] = true;
  }
  bool Has(std::string_view name) const {
    return has_[static_cast<size_t>(FindStage(name) - kStages.data())];
  }

 private:
  FieldReader& reader_;
  std::array<bool, kStages.size()> has_ = {};
  const Stage* last_ = kStages.data();  // of those that run here
};

}  // namespace

void ReadSamplerList(FieldReader& reader, SamplingFields* out) {
  const Json* value = reader.Find("samplers");
  if (value == nullptr) return;
  Listed listed(reader);
  if (value->is_string()) {
    for (const char letter : value->get_ref<const std::string&>())
      listed.Add(FindLetter(letter), std::string_view(&letter, 1), "samplers");
  } else if (value->is_array()) {
    for (size_t i = 0; i < value->size() && reader.ok(); i++) {
      const std::string param = fmt::format("samplers[{}]", i);
      std::string name;
      reader.StringValue((*value)[i], param, &name);
      if (reader.ok()) listed.Add(FindStage(name), name, param);
    }
  } else {
    return reader.FailType("samplers", "an array of names, or a string of letters", *value);
  }
  const SamplingFields off;
  if (!listed.Has("penalties")) {
    out->repetition_penalty = off.repetition_penalty;
    out->presence_penalty = off.presence_penalty;
    out->frequency_penalty = off.frequency_penalty;
  }
  if (!listed.Has("top_k")) out->top_k = off.top_k;
  if (!listed.Has("typ_p")) out->typical_p = off.typical_p;
  if (!listed.Has("top_p")) out->top_p = off.top_p;
  if (!listed.Has("min_p")) out->min_p = off.min_p;
  if (!listed.Has("temperature")) out->temperature = off.temperature;
}

}  // namespace trellis
