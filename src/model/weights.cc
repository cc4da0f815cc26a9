#include "model/weights.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <set>
#include <span>

#include "kernels/pack.h"

namespace trellis {
namespace {

// A tensor that nobody reads means that the file is not the model that we take it for, and that its
// logits would be wrong: libllama refuses it too (done_getting_tensors). These alone may be there.
constexpr const char* kOtherTensors[] = {
    "rope_freqs.weight",  // read with the configuration
    // What an embedding or ranking model has behind its last layer; its tokens do without.
    "cls.output.weight", "dense_2.weight", "dense_3.weight"};

class Loader {
 public:
  Loader(const GgufFile& gguf, const TransformerConfig& config, ComputePool& pool,
         const LoadOptions& options)
      : gguf_(gguf), spec_(config.spec), config_(config), pool_(pool), options_(options) {}

  Result<Weights> Load() {
    const size_t width = spec_.embedding_length;
    TRELLIS_ASSIGN_OR_RETURN(weights_.embedding,
                             Matrix("token_embd.weight", spec_.vocab_size, width));
    TRELLIS_ASSIGN_OR_RETURN(weights_.output_norm, Vector("output_norm.weight", width));
    weights_.layers.resize(spec_.num_layers);
    for (size_t i = 0; i < spec_.num_layers; i++) {
      TRELLIS_RETURN_IF_ERROR(LoadLayer(fmt::format("blk.{}.", i), &weights_.layers[i]));
    }
    const bool tied = gguf_.Find("output.weight") == nullptr;
    const std::string output = tied ? "token_embd" : "output";
    TRELLIS_RETURN_IF_ERROR(AddPart(output, spec_.vocab_size, width, &weights_.output));
    Name("head", &weights_.output);
    TRELLIS_RETURN_IF_ERROR(CheckAllRead());
    TRELLIS_RETURN_IF_ERROR(FindOrPack());
    return std::move(weights_);
  }

 private:
  Status LoadLayer(const std::string& prefix, LayerWeights* layer) {
    const size_t width = spec_.embedding_length, hidden = spec_.feed_forward_length;
    const size_t q_width = spec_.num_heads * spec_.head_dim,
                 kv_width = spec_.num_kv_heads * spec_.head_dim;
    TRELLIS_ASSIGN_OR_RETURN(layer->attention_norm, Vector(prefix + "attn_norm.weight", width));
    TRELLIS_ASSIGN_OR_RETURN(layer->feed_forward_norm, Vector(prefix + "ffn_norm.weight", width));
    if (config_.qk_norm) {
      TRELLIS_ASSIGN_OR_RETURN(layer->q_norm,
                               Vector(prefix + "attn_q_norm.weight", spec_.head_dim));
      TRELLIS_ASSIGN_OR_RETURN(layer->k_norm,
                               Vector(prefix + "attn_k_norm.weight", spec_.head_dim));
    }
    if (config_.post_norms) {
      TRELLIS_ASSIGN_OR_RETURN(layer->post_attention_norm,
                               Vector(prefix + "post_attention_norm.weight", width));
      TRELLIS_ASSIGN_OR_RETURN(layer->post_feed_forward_norm,
                               Vector(prefix + "post_ffw_norm.weight", width));
    }
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "attn_q", q_width, width, &layer->qkv));
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "attn_k", kv_width, width, &layer->qkv));
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "attn_v", kv_width, width, &layer->qkv));
    TRELLIS_RETURN_IF_ERROR(
        AddPart(prefix + "attn_output", width, q_width, &layer->attention_output));
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "ffn_gate", hidden, width, &layer->gate_up));
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "ffn_up", hidden, width, &layer->gate_up));
    TRELLIS_RETURN_IF_ERROR(AddPart(prefix + "ffn_down", width, hidden, &layer->down));
    Name("qkv", &layer->qkv), Name("attn_output", &layer->attention_output);
    Name("gate_up", &layer->gate_up), Name("down", &layer->down);
    return Status::Ok();
  }

  static void Name(const char* what, Projection* projection) {
    std::vector<std::string> types;
    for (const Projection::Part& part : projection->parts) {
      const std::string type = PackedTypeName(part.matrix.type);
      if (std::find(types.begin(), types.end(), type) == types.end()) types.push_back(type);
    }
    projection->name = fmt::format("{} {}x{} {}", what, projection->parts[0].matrix.depth,
                                   projection->num_outputs, fmt::join(types, "+"));
  }

  Result<const GgufTensor*> Matrix(const std::string& name, size_t num_rows, size_t depth) {
    const GgufTensor* tensor = gguf_.Find(name);
    if (tensor == nullptr) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: tensor {} is missing", gguf_.path(), name));
    }
    if (tensor->depth != depth || tensor->num_rows != num_rows) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: tensor {} is [{}, {}], expected [{}, {}]", gguf_.path(), name,
                                tensor->depth, tensor->num_rows, depth, num_rows));
    }
    read_.insert(tensor);
    return tensor;
  }

  Status CheckAllRead() const {
    for (const GgufTensor& tensor : gguf_.tensors()) {
      const bool may_be_there =
          read_.contains(&tensor) ||
          std::count(std::begin(kOtherTensors), std::end(kOtherTensors), tensor.name) > 0;
      if (may_be_there) continue;
      return Status(StatusCode::kUnsupported,
                    fmt::format("{}: tensor {} is none of a {} model as it is supported here",
                                gguf_.path(), tensor.name, spec_.architecture));
    }
    return Status::Ok();
  }

  Result<const float*> Vector(const std::string& name, size_t size) {
    TRELLIS_ASSIGN_OR_RETURN(const GgufTensor* tensor, Matrix(name, 1, size));
    std::vector<float> values(size);
    if (tensor->type == GGML_TYPE_F32) {
      std::copy_n(reinterpret_cast<const float*>(tensor->data), size, values.data());
    } else {
      const auto type = static_cast<ggml_type>(tensor->type);
      ggml_get_type_traits(type)->to_float(tensor->data, values.data(), static_cast<int64_t>(size));
    }
    weights_.vectors.push_back(std::move(values));
    return weights_.vectors.back().data();
  }

  // Places tensor `name`.weight in the image, as the projection's next columns; `name`.bias goes
  // with it if it is there.
  Status AddPart(const std::string& name, size_t num_outputs, size_t depth,
                 Projection* projection) {
    TRELLIS_ASSIGN_OR_RETURN(const GgufTensor* tensor,
                             Matrix(name + ".weight", num_outputs, depth));
    Projection::Part part;
    part.column = projection->num_outputs;
    part.matrix = {.type = PackedTypeFor(tensor->type),
                   .num_outputs = tensor->num_rows,
                   .depth = tensor->depth,
                   .panels = nullptr};
    if (gguf_.Find(name + ".bias") != nullptr) {
      TRELLIS_ASSIGN_OR_RETURN(part.bias, Vector(name + ".bias", num_outputs));
    }
    places_.push_back(
        {tensor, part.matrix, weights_.packed_bytes, projection, projection->parts.size()});
    weights_.packed_bytes += part.matrix.num_panels() * part.matrix.panel_bytes();
    projection->parts.push_back(part);
    projection->num_outputs += num_outputs;
    return Status::Ok();
  }

  // A tensor's place in the image. Projections stay where they are.
  struct Place {
    const GgufTensor* tensor;
    PackedMatrix matrix;
    size_t offset;
    Projection* projection;
    size_t part;
  };

  Status FindOrPack() {
    const std::byte* image = FindPacked();
    if (image == nullptr) {
      TRELLIS_ASSIGN_OR_RETURN(weights_.packed, Buffer::Allocate(weights_.packed_bytes));
      PackAll();
      image = weights_.packed.data();
      StorePacked();
    }
    for (const Place& place : places_) {
      place.projection->parts[place.part].matrix.panels = image + place.offset;
    }
    return Status::Ok();
  }

  // What the image depends on: the file, by its content and by its state on the disk, and where
  // each tensor lies. That packing still does what it did, FindPacked() sees for itself.
  std::string Key() const {
    std::string key = fmt::format("{} {}", config_.spec.fingerprint, gguf_.FileIdentity());
    for (const Place& place : places_) {
      key += fmt::format("\n{} {} {}", place.tensor->name, PackedTypeName(place.matrix.type),
                         place.offset);
    }
    return key;
  }

  // Null when there is no cache, or nothing in it that can be used.
  const std::byte* FindPacked() {
    if (options_.pack_cache.empty()) return nullptr;
    std::optional<PackCache::Image> found =
        PackCache(options_.pack_cache).Find(Key(), weights_.packed_bytes, pool_);
    if (!found) return nullptr;
    std::atomic<bool> differs{false};
    pool_.ParallelFor(places_.size(), [&](size_t i, size_t) {
      if (!HasPanelOf(places_[i], found->bytes)) differs = true;
    });
    if (differs) return nullptr;
    weights_.mapped = std::move(found);
    return weights_.mapped->bytes.data();
  }

  // Packs one panel of the tensor and compares: another version of the layout, or of the packing,
  // shows, and so does another file that passes for this one.
  static bool HasPanelOf(const Place& place, std::span<const std::byte> image) {
    const size_t panel = place.offset / 64 * 2654435761u % place.matrix.num_panels();
    const size_t bytes = place.matrix.panel_bytes();
    // PackPanels() writes where the panel lies in its tensor; only that one is touched.
    std::vector<std::byte> packed(bytes + 64);
    std::byte* aligned =
        packed.data() + (64 - reinterpret_cast<uintptr_t>(packed.data()) % 64) % 64;
    PackSource source = SourceOf(*place.tensor);
    source.rows += panel * kPanelOutputs * source.row_bytes;
    source.num_outputs = std::min(kPanelOutputs, source.num_outputs - panel * kPanelOutputs);
    PackPanels(source, place.matrix.type, 0, 1, aligned);
    return std::equal(aligned, aligned + bytes, image.data() + place.offset + panel * bytes);
  }

  static PackSource SourceOf(const GgufTensor& tensor) {
    return {.ggml_type = tensor.type,
            .rows = tensor.data,
            .row_bytes = tensor.row_bytes,
            .num_outputs = tensor.num_rows,
            .depth = tensor.depth,
            .dequantize = ggml_get_type_traits(static_cast<ggml_type>(tensor.type))->to_float};
  }

  void PackAll() {
    size_t done = 0, total = 0;
    for (const Place& place : places_) total += place.tensor->bytes();
    for (const Place& place : places_) {
      const PackSource source = SourceOf(*place.tensor);
      std::byte* panels = weights_.packed.data() + place.offset;
      // A few panels at a time: enough items to balance, each a stretch of the file.
      constexpr size_t kPanelsPerItem = 4;
      const size_t num_panels = place.matrix.num_panels();
      pool_.ParallelFor((num_panels + kPanelsPerItem - 1) / kPanelsPerItem,
                        [&](size_t item, size_t) {
                          const size_t begin = item * kPanelsPerItem;
                          PackPanels(source, place.matrix.type, begin,
                                     std::min(begin + kPanelsPerItem, num_panels), panels);
                        });
      gguf_.DontNeed(*place.tensor);
      done += place.tensor->bytes();
      if (options_.progress) options_.progress(done, total);
    }
  }

  void StorePacked() const {
    if (options_.pack_cache.empty()) return;
    const Status stored = PackCache(options_.pack_cache)
                              .Store(Key(), {weights_.packed.data(), weights_.packed_bytes}, pool_);
    if (!stored.ok() && options_.warn)
      options_.warn(
          fmt::format("the packed weights are not kept for the next start: {}", stored.message()));
  }

  const GgufFile& gguf_;
  const ModelSpec& spec_;
  const TransformerConfig& config_;
  ComputePool& pool_;
  const LoadOptions& options_;
  Weights weights_;
  std::set<const GgufTensor*> read_;
  std::vector<Place> places_;
};

}  // namespace

bool Projection::Reads(ActivationForm form) const {
  return std::any_of(parts.begin(), parts.end(),
                     [form](const Part& p) { return FormFor(p.matrix.type) == form; });
}

Result<Weights> LoadWeights(const GgufFile& gguf, const TransformerConfig& config,
                            ComputePool& pool, const LoadOptions& options) {
  return Loader(gguf, config, pool, options).Load();
}

}  // namespace trellis
