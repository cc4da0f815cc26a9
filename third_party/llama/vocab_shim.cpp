// llama.cpp reads a vocabulary through its model loader, which would bring its backends and model graphs along. The
// vocabulary asks that class only for single metadata values, so this file defines just those members of it.
#include <stdexcept>
#include <string>
#include <vector>

#include "ggml-backend.h"
#include "gguf.h"
#include "llama-arch.h"
#include "llama-model-loader.h"
#include "llama-vocab.h"
#include "trellis_llama.h"

llama_model_loader::llama_model_loader(gguf_context* gguf, llama_model_set_tensor_data_t, void*, const std::string&,
                                       std::vector<std::string>&, FILE*, llama_load_mode, bool, bool, bool,
                                       const llama_model_kv_override*, const llama_model_tensor_buft_override*)
    : check_tensors(false),
      no_alloc(true),
      load_mtp(false),
      ftype(LLAMA_FTYPE_GUESSED),
      fver(GGUF_FILE_VERSION_V3),
      tensor_buft_overrides(nullptr),
      metadata(gguf),
      set_tensor_data(nullptr),
      set_tensor_data_ud(nullptr) {
  get_key(LLM_KV_GENERAL_ARCHITECTURE, arch_name, false);
  llm_kv = LLM_KV(llm_arch_from_string(arch_name));
}

namespace {
template <typename T>
struct Value;
template <>
struct Value<bool> {
  static constexpr gguf_type kType = GGUF_TYPE_BOOL;
  static bool Get(const gguf_context* gguf, int64_t key) { return gguf_get_val_bool(gguf, key); }
};
template <>
struct Value<uint32_t> {
  static constexpr gguf_type kType = GGUF_TYPE_UINT32;
  static uint32_t Get(const gguf_context* gguf, int64_t key) { return gguf_get_val_u32(gguf, key); }
};
template <>
struct Value<std::string> {
  static constexpr gguf_type kType = GGUF_TYPE_STRING;
  static std::string Get(const gguf_context* gguf, int64_t key) { return gguf_get_val_str(gguf, key); }
};
}  // namespace

template <typename T>
bool llama_model_loader::get_key(enum llm_kv kid, T& result, bool required) {
  const std::string key = llm_kv(kid);
  const int64_t index = gguf_find_key(metadata, key.c_str());
  if (index < 0) {
    if (required) throw std::runtime_error("key not found in model: " + key);
    return false;
  }
  const gguf_type type = gguf_get_kv_type(metadata, index);
  if (type != Value<T>::kType) {
    throw std::runtime_error("key " + key + " has type " + gguf_type_name(type) + ", expected " +
                             gguf_type_name(Value<T>::kType));
  }
  result = Value<T>::Get(metadata, index);
  return true;
}
template bool llama_model_loader::get_key<bool>(enum llm_kv, bool&, bool);
template bool llama_model_loader::get_key<uint32_t>(enum llm_kv, uint32_t&, bool);
template bool llama_model_loader::get_key<std::string>(enum llm_kv, std::string&, bool);

// ---- what ggml.c and gguf.cpp name but only tensors in a backend's buffer would call ------------------------------

[[noreturn]] static void NoBackend() { throw std::logic_error("llama.cpp was built without its backends"); }

void ggml_backend_tensor_set(ggml_tensor*, const void*, size_t, size_t) { NoBackend(); }
void ggml_backend_tensor_get(const ggml_tensor*, void*, size_t, size_t) { NoBackend(); }
void ggml_backend_tensor_memset(ggml_tensor*, uint8_t, size_t, size_t) { NoBackend(); }
ggml_backend_buffer_usage ggml_backend_buffer_get_usage(ggml_backend_buffer_t) { NoBackend(); }
bool ggml_backend_buffer_is_host(ggml_backend_buffer_t) { NoBackend(); }

// -------------------------------------------------------------------------------------------------------------------

namespace trellis_llama {
namespace {

thread_local std::string errors;

void KeepErrors(ggml_log_level level, const char* text, void*) {
  constexpr size_t kEnough = 4096;
  if (level == GGML_LOG_LEVEL_ERROR && errors.size() < kEnough) errors += text;
}

const bool log_is_kept = [] {
  llama_log_set(KeepErrors, nullptr);
  return true;
}();

}  // namespace

std::string TakeErrors() {
  std::string taken = std::move(errors);
  errors.clear();
  while (!taken.empty() && taken.back() == '\n') taken.pop_back();
  return taken;
}

void VocabDeleter::operator()(llama_vocab* vocab) const { delete vocab; }

Vocab LoadVocab(gguf_context* gguf) {
  std::vector<std::string> no_splits;
  llama_model_loader loader(gguf, nullptr, nullptr, "", no_splits, nullptr, LLAMA_LOAD_MODE_NONE, false, true, false,
                            nullptr, nullptr);
  VocabPtr vocab(new llama_vocab);
  vocab->load(loader, loader.llm_kv);
  std::vector<int32_t> special_tokens = vocab->take_special_tokens();
  return {std::move(vocab), std::move(special_tokens)};
}

}  // namespace trellis_llama
