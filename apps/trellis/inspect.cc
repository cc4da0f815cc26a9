// trellis inspect: what a GGUF file holds, and what of it fits into this machine.
#include <fmt/format.h>
#include <ggml.h>

#include <map>

#include "base/page_layout.h"
#include "commands.h"
#include "console.h"
#include "kernels/kernels.h"
#include "loading.h"
#include "model/gguf_file.h"
#include "model/transformer_config.h"
#include "models.h"
#include "os/machine.h"

namespace trellis {
namespace {

Status Inspect(const std::string& name) {
  TRELLIS_ASSIGN_OR_RETURN(const std::string path, FindModelFile(name));
  TRELLIS_ASSIGN_OR_RETURN(std::unique_ptr<GgufFile> gguf, GgufFile::Open(path));
  TRELLIS_ASSIGN_OR_RETURN(TransformerConfig config, ReadTransformerConfig(*gguf));
  TRELLIS_ASSIGN_OR_RETURN(const KernelTable* kernels, SelectKernelsFromEnvironment());
  const ModelSpec& s = config.spec;
  fmt::print("{}\n", s.name);
  fmt::print("  architecture     {}, {} layers, width {}, feed-forward {}\n", s.architecture,
             s.num_layers, s.embedding_length, s.feed_forward_length);
  fmt::print("  attention        {} heads over {} kv heads of {}", s.num_heads, s.num_kv_heads,
             s.head_dim);
  fmt::print("{}\n", s.sliding_window > 0 ? fmt::format(", window {}", s.sliding_window) : "");
  fmt::print("  context          {} tokens, vocabulary {}\n", s.context_length, s.vocab_size);
  fmt::print("  file             {}, {}, {:.1f} M parameters\n", FormatBytes(s.file_bytes),
             s.file_type, static_cast<double>(s.num_parameters) / 1e6);
  struct Count {
    size_t tensors = 0, bytes = 0;
  };
  std::map<std::string, Count> types;
  for (const GgufTensor& tensor : gguf->tensors()) {
    Count& count = types[ggml_type_name(static_cast<ggml_type>(tensor.type))];
    count.tensors++;
    count.bytes += tensor.bytes();
  }
  for (const auto& [type, count] : types) {
    fmt::print("  tensors {:<8} {:>5}  {}\n", type, count.tensors, FormatBytes(count.bytes));
  }
  const auto bytes_per_token = [&s](KvType type) {
    const PageLayout layout{s.num_layers, s.num_kv_heads, s.head_dim, type};
    return static_cast<double>(layout.page_bytes()) / kPageTokens;
  };
  const auto per_thousand = [&](KvType type) {
    return FormatBytes(static_cast<size_t>(bytes_per_token(type) * 1000));
  };
  const KvType type_here = kernels->attention.fastest_type;
  const double per_token = bytes_per_token(type_here);
  fmt::print("  KV cache         {} per 1,000 tokens as {}, {} as {}\n", per_thousand(type_here),
             KvTypeName(type_here), per_thousand(KvType::kQ8_0), KvTypeName(KvType::kQ8_0));
  const size_t available = AvailableMemoryBytes();
  const size_t left = available > s.file_bytes ? available - s.file_bytes : 0;
  if (left == 0) {
    fmt::print("  this machine     {} free: the weights do not fit\n", FormatBytes(available));
  } else {
    fmt::print("  this machine     {} free: weights and {:.0f} tokens of KV cache fit\n",
               FormatBytes(available), static_cast<double>(left) / per_token);
  }
  return Status::Ok();
}

}  // namespace

void AddInspect(CLI::App& app, int* exit_status) {
  auto path = std::make_shared<std::string>();
  CLI::App* inspect = app.add_subcommand("inspect", "Say what a GGUF file holds");
  inspect->add_option("file", *path, "GGUF file, or the name of a pulled model")
      ->required()
      ->type_name("MODEL");
  inspect->callback([path, exit_status] { *exit_status = ExitStatusOf(Inspect(*path)); });
}

}  // namespace trellis
