// Any bytes as a GGUF file: its header, tensor table, hyperparameters and weights. Either an error
// comes back, or every tensor can be read to its last byte and a whole model is packed.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "base/check.h"
#include "model/gguf_file.h"
#include "model/transformer_config.h"
#include "model/weights.h"
#include "os/compute_pool.h"

namespace {

constexpr size_t kMaxPackedFile = 1 << 20;  // more would only take time

// The bytes as a file that has a path but no disk.
class MemoryFile {
 public:
  MemoryFile(const uint8_t* data, size_t size) : fd_(memfd_create("gguf", 0)) {
    TRELLIS_CHECK(fd_ >= 0);
    TRELLIS_CHECK(write(fd_, data, size) == static_cast<ssize_t>(size));
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  const auto gguf = trellis::GgufFile::Open(file.path());
  if (!gguf.ok()) return 0;
  unsigned sum = 0;  // every tensor's ends are read
  for (const trellis::GgufTensor& tensor : (*gguf)->tensors()) {
    if (tensor.bytes() == 0) continue;
    sum += static_cast<unsigned>(tensor.data[0]) +
           static_cast<unsigned>(tensor.data[tensor.bytes() - 1]);
  }
  TRELLIS_CHECK(sum < ~0u);
  const auto config = trellis::ReadTransformerConfig(**gguf);
  if (config.ok() && size <= kMaxPackedFile) {
    // One thread: what the fuzzer finds it finds again.
    static const auto pool = trellis::ComputePool::Create(1);
    TRELLIS_CHECK(pool.ok());
    const auto weights = trellis::LoadWeights(**gguf, *config, **pool, {});
    if (weights.ok()) {
      TRELLIS_CHECK(weights->layers.size() == config->spec.num_layers);
      TRELLIS_CHECK(weights->output.num_outputs == config->spec.vocab_size);
    }
  }
  TRELLIS_CHECK((*gguf)->Fingerprint() == (*gguf)->Fingerprint());
  return 0;
}
