#include "reference.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

extern char** environ;

namespace trellis {
namespace {

namespace fs = std::filesystem;

Status RunReferenceProgram(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), LLAMA_REFERENCE);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  pid_t child = 0;
  int status = posix_spawn(&child, argv[0], nullptr, nullptr, argv.data(), environ);
  if (status != 0) {
    return Status(StatusCode::kIo, fmt::format("{}: {}", argv[0], std::strerror(status)));
  }
  if (waitpid(child, &status, 0) != child || status != 0) {
    return Status(StatusCode::kInternal,
                  fmt::format("llama_reference failed: {}", fmt::join(arguments, " ")));
  }
  return Status::Ok();
}

// FNV-1a.
std::string HashOf(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash);
}

}  // namespace

Reference::Reference(std::string model, std::vector<TokenId> tokens, fs::path folder)
    : model_(std::move(model)), tokens_(std::move(tokens)), folder_(std::move(folder)) {
  fs::create_directories(folder_);
  std::ofstream file(folder_ / "tokens");
  for (const TokenId token : tokens_) file << token << '\n';
}

Reference::~Reference() {
  fs::remove_all(folder_);
}

Result<LogitsFile> Reference::Logits(const std::string& name,
                                     const std::vector<std::string>& options) const {
  const fs::path out = folder_ / (name + ".f32");
  TRELLIS_RETURN_IF_ERROR(WriteLogits(model_, out, options));
  return Open(out);
}

Result<std::vector<float>> Reference::Embedding(const std::string& pooling) const {
  const fs::path out = folder_ / (pooling + ".f32");
  TRELLIS_RETURN_IF_ERROR(WriteLogits(model_, out, {"--embedding", pooling}));
  TRELLIS_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(out.string()));
  std::vector<float> embedding(file.bytes().size() / sizeof(float));
  std::memcpy(embedding.data(), file.bytes().data(), file.bytes().size());
  return embedding;
}

Result<LogitsFile> Reference::Truth() const {
  const fs::path out = folder_ / "truth.f32";
  TRELLIS_RETURN_IF_ERROR(WriteTruth(out));
  return Open(out);
}

Result<LogitsFile> Reference::CachedTruth(const fs::path& cache, const std::string& name,
                                          const std::string& fingerprint) const {
  const std::string key =
      HashOf(fmt::format("{} {} {}", fingerprint, fmt::join(tokens_, " "), LLAMA_REFERENCE_ID));
  const fs::path out = cache / fmt::format("{}-{}.f32", name, key);
  if (!fs::exists(out)) {
    fs::create_directories(cache);
    const fs::path partial = cache / fmt::format("{}-{}.partial{}", name, key, getpid());
    TRELLIS_RETURN_IF_ERROR(WriteTruth(partial));
    // They are large: those of other texts and libraries go.
    for (const fs::directory_entry& entry : fs::directory_iterator(cache)) {
      const std::string other = entry.path().filename().string();
      if (other.rfind(name + "-", 0) == 0 && entry.path().extension() == ".f32") {
        fs::remove(entry.path());
      }
    }
    fs::rename(partial, out);
  }
  return Open(out);
}

Status Reference::WriteTruth(const fs::path& out) const {
  const fs::path exact = folder_ / "exact.gguf";
  TRELLIS_RETURN_IF_ERROR(RunReferenceProgram({"dequantize", model_, exact.string()}));
  const Status status =
      WriteLogits(exact.string(), out, {"--kv", "f32", "--flash-attention", "off"});
  fs::remove(exact);
  return status;
}

Status Reference::WriteLogits(const std::string& model, const fs::path& out,
                              const std::vector<std::string>& options) const {
  std::vector<std::string> arguments = {"logits", model, (folder_ / "tokens").string(),
                                        out.string()};
  arguments.insert(arguments.end(), options.begin(), options.end());
  return RunReferenceProgram(arguments);
}

Result<LogitsFile> Reference::Open(const fs::path& path) const {
  TRELLIS_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path.string()));
  return LogitsFile(std::move(file), tokens_.size());
}

}  // namespace trellis
