#include "hub/model_name.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <set>

namespace trellis {
namespace {

std::string Upper(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return upper;
}

// As hubs allow them; none that means another folder.
bool IsNamePart(std::string_view part) {
  return !part.empty() && part.front() != '.' && part.front() != '-' &&
         std::all_of(part.begin(), part.end(), [](unsigned char c) {
           return c < 128 && (std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.');
         });
}

// The five digits at the end of `text`, which they are taken from together with `before`.
std::optional<size_t> TakeNumber(std::string_view& text, std::string_view before) {
  const size_t length = before.size() + 5;
  if (text.size() < length || text.substr(text.size() - length, before.size()) != before) {
    return std::nullopt;
  }
  size_t number = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(end - 5, end, number);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  text.remove_suffix(length);
  return number;
}

// Whether `path` has the quantisation as a word of its own: Q4_K_M is not in IQ4_K_M.
bool HasQuant(const std::string& path, const std::string& quant) {
  const std::string text = Upper(path), word = Upper(quant);
  for (size_t at = text.find(word); at != text.npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || std::string_view("-._/").find(text[at - 1]) != std::string::npos;
    if (begins && end < text.size() &&
        std::string_view("-./").find(text[end]) != std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<ModelReference> ParseModelReference(std::string_view text) {
  ModelReference reference;
  if (const size_t colon = text.find(':'); colon != text.npos) {
    reference.quant = text.substr(colon + 1);
    if (!IsNamePart(reference.quant)) return std::nullopt;
    text = text.substr(0, colon);
  }
  const size_t slash = text.find('/');
  if (slash == text.npos || !IsNamePart(text.substr(0, slash)) ||
      !IsNamePart(text.substr(slash + 1))) {
    return std::nullopt;
  }
  reference.repo = text;
  return reference;
}

std::optional<GgufName> ParseGgufName(std::string_view path) {
  if (!Upper(path).ends_with(".GGUF")) return std::nullopt;
  path.remove_suffix(5);
  const std::string_view file = path.substr(path.rfind('/') + 1);
  for (const char* other : {"mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"}) {
    if (file.find(other) != file.npos) return std::nullopt;
  }
  GgufName name;
  std::string_view stem = path;
  const auto num_parts = TakeNumber(stem, "-of-");
  const auto part = num_parts ? TakeNumber(stem, "-") : std::nullopt;
  if (part && *part >= 1 && *part <= *num_parts) {
    name.part = *part, name.num_parts = *num_parts;
  } else {
    stem = path;
  }
  name.stem = stem;
  const size_t before = stem.find_last_of("-./");
  if (before != stem.npos && stem[before] != '/') name.quant = Upper(stem.substr(before + 1));
  return name;
}

Result<std::vector<std::string>> ChooseModel(const std::vector<std::string>& paths,
                                             const std::string& quant) {
  std::map<std::string, std::map<size_t, std::string>> models;  // by stem; paths by part
  std::map<std::string, size_t> num_parts;
  std::set<std::string> quants;
  for (const std::string& path : paths) {
    const auto name = ParseGgufName(path);
    if (!name) continue;
    models[name->stem][name->part] = path;
    num_parts[name->stem] = name->num_parts;
    quants.insert(name->quant.empty() ? path : name->quant);
  }
  if (models.empty()) return Status(StatusCode::kNotFound, "it has no GGUF file");
  auto chosen = models.end();
  const auto choose = [&](const std::string& wanted) {
    if (chosen != models.end()) return;
    chosen = std::find_if(models.begin(), models.end(), [&](const auto& model) {
      return HasQuant(model.second.begin()->second, wanted);
    });
  };
  if (quant.empty()) {
    choose("Q4_K_M");
    choose("Q8_0");
    if (chosen == models.end()) chosen = models.begin();
  } else {
    choose(quant);
  }
  if (chosen == models.end()) {
    return Status(StatusCode::kNotFound,
                  fmt::format("it has no {}, but {}", quant, fmt::join(quants, ", ")));
  }
  const auto& [stem, parts] = *chosen;
  if (parts.size() != num_parts[stem]) {
    return Status(StatusCode::kDataLoss, fmt::format("{} has {} parts, of which {} are there", stem,
                                                     num_parts[stem], parts.size()));
  }
  std::vector<std::string> files;
  for (const auto& [part, path] : parts) files.push_back(path);
  return files;
}

}  // namespace trellis
