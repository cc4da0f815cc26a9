#include "model/gguf_file.h"

#include <fmt/format.h>
#include <ggml.h>
#include <gguf.h>
#include <trellis_llama.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace trellis {
namespace {

// What ggml said last, in its log, of why it could not read a header.
std::string WhyUnreadable() {
  const std::string errors = trellis_llama::TakeErrors();
  const std::string last = errors.substr(errors.rfind('\n') + 1);
  return last.empty() ? "unreadable" : last;
}

gguf_context* ParseHeader(const MappedFile& file) {
  trellis_llama::TakeErrors();
  return gguf_init_from_buffer(file.bytes().data(), file.bytes().size(),
                               {.no_alloc = true, .ctx = nullptr});
}

// "x-00002-of-00005.gguf" for split 2 of "x-00001-of-00005.gguf".
std::string SplitPath(const std::string& first, size_t index, size_t count) {
  const std::string suffix = fmt::format("-{:05}-of-{:05}.gguf", 1, count);
  return first.substr(0, first.size() - suffix.size()) +
         fmt::format("-{:05}-of-{:05}.gguf", index, count);
}

// Two 64-bit lanes of multiply-and-mix; not cryptographic, 128 bits wide.
class Hash128 {
 public:
  void Add(const void* data, size_t size) {
    const auto* p = static_cast<const unsigned char*>(data);
    for (; size >= 8; p += 8, size -= 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      Mix(word);
    }
    uint64_t tail = 0;
    std::memcpy(&tail, p, size);
    Mix(tail ^ (uint64_t{size} << 56));
  }
  std::string Hex() const {
    return fmt::format("{:016x}{:016x}", Finish(a_), Finish(b_ ^ (a_ << 1)));
  }

 private:
  static uint64_t Finish(uint64_t x) {
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
    return x ^ (x >> 33);
  }
  void Mix(uint64_t word) {
    a_ = Finish(a_ ^ word) + 0x9e3779b97f4a7c15ULL;
    b_ = (b_ ^ word) * 0xd6e8feb86659fd93ULL;
    b_ ^= b_ >> 32;
  }
  uint64_t a_ = 0x243f6a8885a308d3ULL, b_ = 0x13198a2e03707344ULL;
};

}  // namespace

GgufFile::~GgufFile() {
  for (Split& split : splits_) gguf_free(split.header);
}

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  std::unique_ptr<GgufFile> gguf(new GgufFile());
  gguf->path_ = path;
  TRELLIS_RETURN_IF_ERROR(gguf->AddSplit(path));
  const size_t count = gguf->Integer("split.count").value_or(1);
  if (count > 1) {
    const std::string suffix = fmt::format("-00001-of-{:05}.gguf", count);
    if (path.size() < suffix.size() ||
        path.compare(path.size() - suffix.size(), suffix.size(), suffix) != 0) {
      return Status(
          StatusCode::kInvalidArgument,
          fmt::format("{}: one of {} splits; give the one named *{}", path, count, suffix));
    }
    for (size_t i = 2; i <= count; i++)
      TRELLIS_RETURN_IF_ERROR(gguf->AddSplit(SplitPath(path, i, count)));
  }
  return gguf;
}

Status GgufFile::AddSplit(const std::string& path) {
  TRELLIS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const size_t size = file.bytes().size();
  if (size < 4 || std::memcmp(file.bytes().data(), "GGUF", 4) != 0) {
    return Status(StatusCode::kDataLoss, fmt::format("{}: not a GGUF file", path));
  }
  gguf_context* header = ParseHeader(file);
  if (header == nullptr) {
    return Status(StatusCode::kDataLoss,
                  fmt::format("{}: damaged or truncated header ({})", path, WhyUnreadable()));
  }
  const std::byte* base = file.bytes().data();
  splits_.push_back({std::move(file), header});
  const size_t data_offset = gguf_get_data_offset(header);
  for (int64_t i = 0; i < gguf_get_n_tensors(header); i++) {
    GgufTensor tensor;
    tensor.name = gguf_get_tensor_name(header, i);
    const ggml_type type = gguf_get_tensor_type(header, i);
    const ggml_type_traits* traits = ggml_get_type_traits(type);
    tensor.type = type;
    if (type != GGML_TYPE_F32 && (traits->to_float == nullptr || traits->blck_size == 0)) {
      return Status(StatusCode::kUnsupported,
                    fmt::format("{}: tensor {} has type {}, which cannot be read", path,
                                tensor.name, ggml_type_name(type)));
    }
    const int64_t* shape = gguf_get_tensor_ne(header, i);
    tensor.depth = static_cast<size_t>(shape[0]);
    tensor.num_rows = static_cast<size_t>(shape[1]) * static_cast<size_t>(shape[2]) *
                      static_cast<size_t>(shape[3]);
    tensor.row_bytes = ggml_row_size(type, shape[0]);
    tensor.file = splits_.size() - 1;
    tensor.offset = data_offset + gguf_get_tensor_offset(header, i);
    if (tensor.offset > size || tensor.bytes() > size - tensor.offset) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: truncated: tensor {} ends at byte {}, the file has {}", path,
                                tensor.name, tensor.offset + tensor.bytes(), size));
    }
    tensor.data = base + tensor.offset;
    if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
      return Status(StatusCode::kDataLoss,
                    fmt::format("{}: tensor {} is there twice", path, tensor.name));
    }
    tensors_.push_back(std::move(tensor));
  }
  return Status::Ok();
}

const GgufTensor* GgufFile::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

size_t GgufFile::file_bytes() const {
  size_t bytes = 0;
  for (const Split& split : splits_) bytes += split.file.bytes().size();
  return bytes;
}

int64_t GgufFile::FindKey(const std::string& key) const {
  return gguf_find_key(splits_[0].header, key.c_str());
}

std::optional<uint64_t> GgufFile::Integer(const std::string& key) const {
  const int64_t id = FindKey(key);
  if (id < 0) return std::nullopt;
  const gguf_context* h = splits_[0].header;
  const auto non_negative = [](int64_t value) {
    return value >= 0 ? std::optional<uint64_t>(static_cast<uint64_t>(value)) : std::nullopt;
  };
  switch (gguf_get_kv_type(h, id)) {
    case GGUF_TYPE_UINT8:
      return gguf_get_val_u8(h, id);
    case GGUF_TYPE_INT8:
      return non_negative(gguf_get_val_i8(h, id));
    case GGUF_TYPE_UINT16:
      return gguf_get_val_u16(h, id);
    case GGUF_TYPE_INT16:
      return non_negative(gguf_get_val_i16(h, id));
    case GGUF_TYPE_UINT32:
      return gguf_get_val_u32(h, id);
    case GGUF_TYPE_INT32:
      return non_negative(gguf_get_val_i32(h, id));
    case GGUF_TYPE_UINT64:
      return gguf_get_val_u64(h, id);
    case GGUF_TYPE_INT64:
      return non_negative(gguf_get_val_i64(h, id));
    default:
      return std::nullopt;
  }
}

std::optional<float> GgufFile::Float(const std::string& key) const {
  const int64_t id = FindKey(key);
  if (id < 0) return std::nullopt;
  const gguf_context* h = splits_[0].header;
  float value = NAN;
  if (gguf_get_kv_type(h, id) == GGUF_TYPE_FLOAT32) value = gguf_get_val_f32(h, id);
  if (gguf_get_kv_type(h, id) == GGUF_TYPE_FLOAT64)
    value = static_cast<float>(gguf_get_val_f64(h, id));
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<std::string> GgufFile::String(const std::string& key) const {
  const int64_t id = FindKey(key);
  if (id < 0 || gguf_get_kv_type(splits_[0].header, id) != GGUF_TYPE_STRING) return std::nullopt;
  return std::string(gguf_get_val_str(splits_[0].header, id));
}

std::optional<std::vector<bool>> GgufFile::Bools(const std::string& key) const {
  const int64_t id = FindKey(key);
  const gguf_context* h = splits_[0].header;
  if (id < 0 || gguf_get_kv_type(h, id) != GGUF_TYPE_ARRAY) return std::nullopt;
  size_t width = 0;
  switch (gguf_get_arr_type(h, id)) {
    case GGUF_TYPE_BOOL:
    case GGUF_TYPE_UINT8:
    case GGUF_TYPE_INT8:
      width = 1;
      break;
    case GGUF_TYPE_UINT32:
    case GGUF_TYPE_INT32:
      width = 4;
      break;
    default:
      return std::nullopt;
  }
  const auto* data = static_cast<const char*>(gguf_get_arr_data(h, id));
  std::vector<bool> values(gguf_get_arr_n(h, id));
  for (size_t i = 0; i < values.size(); i++) {
    values[i] =
        std::any_of(data + i * width, data + (i + 1) * width, [](char byte) { return byte != 0; });
  }
  return values;
}

std::optional<size_t> GgufFile::ArrayLength(const std::string& key) const {
  const int64_t id = FindKey(key);
  if (id < 0 || gguf_get_kv_type(splits_[0].header, id) != GGUF_TYPE_ARRAY) return std::nullopt;
  return gguf_get_arr_n(splits_[0].header, id);
}

void GgufFile::DontNeed(const GgufTensor& tensor) const {
  splits_[tensor.file].file.DontNeed(tensor.offset, tensor.bytes());
}

std::string GgufFile::FileIdentity() const {
  std::string identity;
  for (const Split& split : splits_) identity += split.file.identity() + ";";
  return identity;
}

std::string GgufFile::Fingerprint() const {
  constexpr size_t kSample = 4096;
  Hash128 hash;
  for (const Split& split : splits_) {
    const size_t size = split.file.bytes().size();
    hash.Add(&size, sizeof(size));
    hash.Add(split.file.bytes().data(), std::min(size, gguf_get_data_offset(split.header)));
  }
  for (const GgufTensor& tensor : tensors_) {
    const size_t n = std::min(kSample, tensor.bytes());
    hash.Add(tensor.data, n);
    hash.Add(tensor.data + tensor.bytes() - n, n);
  }
  return hash.Hex();
}

}  // namespace trellis
