#include "loading.h"
#include "console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "base/printable.h"
#include "model/gguf_file.h"
#include "model/transformer_config.h"
#include "os/machine.h"

namespace trellis {
namespace {

// A bar on a terminal, nothing elsewhere.
void ShowProgress(size_t done, size_t total) {
  if (isatty(STDERR_FILENO) == 0 || total == 0) return;
  Say("\rloading {}{}", Bar(done, total), done >= total ? "\n" : "");
}

// Empty where the environment names no place for it.
std::string PackCacheFolder() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/trellis/packed";
  const char* home = std::getenv("HOME");
  if (home == nullptr || *home == 0) return "";
  return std::string(home) + "/.cache/trellis/packed";
}

// None: what the kernels are fastest with.
std::optional<KvType> KvTypeOf(const ModelOptions& options) {
  const auto found = std::find_if(kKvTypes.begin(), kKvTypes.end(),
                                  [&](KvType type) { return options.kv_type == KvTypeName(type); });
  return found == kKvTypes.end() ? std::nullopt : std::optional(*found);
}

// Before the weights are read, which can take long.
Status CheckContextSize(const ModelOptions& options) {
  if (options.context_size == 0) return Status::Ok();
  if (options.context_size == 1) {
    return Status(StatusCode::kInvalidArgument,
                  "--ctx-size 1: a prompt and its answer take two tokens at least");
  }
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(options.path));
  TRELLIS_ASSIGN_OR_RETURN(TransformerConfig config, ReadTransformerConfig(*gguf));
  if (options.context_size <= config.spec.context_length) return Status::Ok();
  return Status(StatusCode::kInvalidArgument,
                fmt::format("--ctx-size {}: the model was made for {} tokens", options.context_size,
                            config.spec.context_length));
}

}  // namespace

Result<size_t> ParseBytes(const std::string& text) {
  size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  std::string unit = text.substr(used);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const std::string suffixes = "kmgt";
  double factor = 1;
  if (!unit.empty()) {
    const size_t power = suffixes.find(unit[0]);
    const std::string rest = unit.substr(1);
    const bool known = unit == "b" || (power != std::string::npos &&
                                       (rest.empty() || rest == "ib" || rest == "b"));
    if (!known) value = -1;
    for (size_t i = 0; known && unit != "b" && i <= power; i++) factor *= 1024;
  }
  if (!(value >= 0) || value * factor > 1e18) {
    return Status(StatusCode::kInvalidArgument,
                  fmt::format("'{}' is not a size; write 2GiB, 512MiB or a number of bytes", text));
  }
  return static_cast<size_t>(value * factor);
}

std::string FormatBytes(size_t bytes) {
  const double b = static_cast<double>(bytes);
  if (bytes >= size_t{1} << 30) return fmt::format("{:.2f} GiB", b / (1 << 30));
  if (bytes >= size_t{1} << 20) return fmt::format("{:.1f} MiB", b / (1 << 20));
  return fmt::format("{:.1f} KiB", b / 1024);
}

Result<std::unique_ptr<Model>> LoadModel(const ModelOptions& options, const KernelTable& kernels,
                                         ComputePool& pool,
                                         std::function<void(size_t, size_t)> progress) {
  LoadOptions load;
  load.kv_type = KvTypeOf(options);
  load.progress = [&progress](size_t done, size_t total) {
    ShowProgress(done, total);
    if (progress) progress(done, total);
  };
  if (options.pack_cache) load.pack_cache = PackCacheFolder();
  load.warn = [](const std::string& what) { Say("warning: {}\n", Printable(what)); };
  return Model::Load(options.path, kernels, pool, load);
}

PageLayout LayoutOf(const ModelSpec& spec, const ModelOptions& options,
                    const KernelTable& kernels) {
  return {.num_layers = spec.num_layers,
          .num_kv_heads = spec.num_kv_heads,
          .head_dim = spec.head_dim,
          .type = KvTypeOf(options).value_or(kernels.attention.fastest_type)};
}

std::string NameOfFile(const std::string& path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  return name;
}

size_t DefaultCacheBytes(const PageLayout& layout, size_t context_size, size_t available_bytes) {
  const size_t useful = 16 * PagesFor(context_size) * layout.page_bytes();
  return std::max(layout.page_bytes(), std::min(available_bytes / 2, useful));
}

Result<std::unique_ptr<Service>> LoadService(const ModelOptions& options,
                                             std::function<void(size_t, size_t)> progress) {
  const auto start = std::chrono::steady_clock::now();
  TRELLIS_RETURN_IF_ERROR(CheckContextSize(options));
  auto service = std::make_unique<Service>();
  TRELLIS_ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernelsFromEnvironment());
  const size_t threads = options.threads == 0 ? AvailablePhysicalCores() : options.threads;
  TRELLIS_ASSIGN_OR_RETURN(service->pool, ComputePool::Create(threads));
  TRELLIS_ASSIGN_OR_RETURN(service->model,
                           LoadModel(options, *kernels, *service->pool, std::move(progress)));
  const ModelSpec& spec = service->model->spec();
  TRELLIS_ASSIGN_OR_RETURN(service->tokenizer, Tokenizer::Load(options.path));
  TRELLIS_ASSIGN_OR_RETURN(
      service->chat_template,
      ChatTemplate::Create(*service->tokenizer, service->tokenizer->chat_template()));
  if (service->tokenizer->chat_template().empty()) {
    Say("warning: the model has no chat template, so chats are written as ChatML; a base model "
        "knows neither\n");
  }
  for (size_t t = 0; t < service->tokenizer->vocab_size(); t++) {
    const auto token = static_cast<TokenId>(t);
    if (service->tokenizer->IsEndOfGeneration(token)) service->end_tokens.push_back(token);
  }
  const size_t context = options.context_size == 0 ? spec.context_length : options.context_size;
  const PageLayout layout = service->model->page_layout();
  const size_t available = AvailableMemoryBytes();
  size_t cache_bytes = DefaultCacheBytes(layout, context, available);
  if (!options.kv_cache.empty()) {
    TRELLIS_ASSIGN_OR_RETURN(cache_bytes, ParseBytes(options.kv_cache));
  }
  if (cache_bytes > available) {
    Say("warning: a KV cache of {} is more than the {} that are free: when it fills, the system "
        "may end this process. --kv-cache {}MiB would fit; --kv-type q8_0 puts twice the tokens "
        "into it\n",
        FormatBytes(cache_bytes), FormatBytes(available), (available / 2) >> 20);
  }
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<PageCache> cache,
                           PageCache::Create({.layout = layout,
                                              .capacity_bytes = cache_bytes,
                                              .eviction = options.eviction,
                                              .keep_finished = options.prefix_cache}));
  const size_t cache_tokens = cache->Stats().capacity * kPageTokens;
  if (cache_tokens < context) {
    Say("warning: the KV cache holds {} tokens, fewer than a context of {}: longer prompts are "
        "refused\n",
        cache_tokens, context);
  }
  Engine::Options engine;
  engine.context_size = context;
  engine.max_queue = options.max_queue;
  engine.max_inter_token = std::chrono::milliseconds(options.max_itl_ms);
  engine.max_pinned_share = options.pin_share / 100.0;
  engine.pool = service->pool.get();
  TRELLIS_ASSIGN_OR_RETURN(service->engine,
                           Engine::Create(*service->model, std::move(cache), engine));
  service->fingerprint = "fp_" + spec.fingerprint.substr(0, 12);
  service->created = std::chrono::duration_cast<std::chrono::seconds>(
                         std::chrono::system_clock::now().time_since_epoch())
                         .count();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  Say("{} ({}, {}) in {:.1f} s: weights {}{}, KV cache {} = {} tokens{}, context "
      "{}, {} threads, {}\n",
      spec.name, spec.architecture, spec.file_type, took.count(), FormatBytes(spec.packed_bytes),
      spec.packed_before ? " packed before" : "", FormatBytes(cache_bytes), cache_tokens,
      options.kv_cache.empty() ? " (--kv-cache sets it)" : "", context, threads, kernels->name);
  return service;
}

}  // namespace trellis
