// llama_reference: what libllama says about a model, for the oracle tests to compare with. A
// process of its own, because the same names are in the library that Trellis links
// (cmake/LlamaFull.cmake).
//
//   llama_reference dequantize IN OUT [--threads N]
//       writes IN with every weight as f32: the model that IN stands for, exactly
//   llama_reference logits MODEL TOKENS OUT [options]
//       teacher-forces the token ids in the text file TOKENS and writes the logits of every
//       position to OUT: [tokens, vocab] f32, native byte order; with --embedding mean|last, the
//       embedding of all of them: [embedding length]
//
//   --flash-attention on|off   off     --kv f16|f32|q8_0  f16   --repack on|off   on
//   --batch N                  128     --ubatch N         batch --threads N       2
#include <ggml-backend.h>
#include <llama.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Options {
  bool flash_attention = false;
  bool repack = true;
  ggml_type kv = GGML_TYPE_F16;
  enum llama_pooling_type pooling = LLAMA_POOLING_TYPE_NONE;  // none: logits are wanted
  uint32_t batch = 128, ubatch = 0;
  int threads = 2;
};

uint32_t ParseNumber(const std::string& flag, const std::string& text) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0) {
    throw std::runtime_error(flag + ": '" + text + "' is not a positive number");
  }
  return value;
}

bool ParseChoice(const std::string& flag, const std::string& text, const char* yes,
                 const char* no) {
  if (text != yes && text != no) {
    throw std::runtime_error(flag + ": '" + text + "' is neither " + yes + " nor " + no);
  }
  return text == yes;
}

ggml_type ParseType(const std::string& flag, const std::string& text) {
  for (const ggml_type type : {GGML_TYPE_F16, GGML_TYPE_F32, GGML_TYPE_Q8_0}) {
    if (text == ggml_type_name(type)) return type;
  }
  throw std::runtime_error(flag + ": '" + text + "' is neither f16 nor f32 nor q8_0");
}

Options ParseOptions(int argc, char** argv, int first) {
  Options options;
  for (int i = first; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) throw std::runtime_error(flag + " needs a value");
    const std::string value = argv[i + 1];
    if (flag == "--flash-attention") {
      options.flash_attention = ParseChoice(flag, value, "on", "off");
    } else if (flag == "--repack") {
      options.repack = ParseChoice(flag, value, "on", "off");
    } else if (flag == "--embedding") {
      const bool mean = ParseChoice(flag, value, "mean", "last");
      options.pooling = mean ? LLAMA_POOLING_TYPE_MEAN : LLAMA_POOLING_TYPE_LAST;
    } else if (flag == "--kv") {
      options.kv = ParseType(flag, value);
    } else if (flag == "--batch") {
      options.batch = ParseNumber(flag, value);
    } else if (flag == "--ubatch") {
      options.ubatch = ParseNumber(flag, value);
    } else if (flag == "--threads") {
      options.threads = static_cast<int>(ParseNumber(flag, value));
    } else {
      throw std::runtime_error("unknown option " + flag);
    }
  }
  if (options.ubatch == 0) options.ubatch = options.batch;
  return options;
}

void Dequantize(const char* in, const char* out, const Options& options) {
  llama_model_quantize_params params = llama_model_quantize_default_params();
  params.ftype = LLAMA_FTYPE_ALL_F32;
  params.allow_requantize = true;
  params.nthread = options.threads;
  if (llama_model_quantize(in, out, &params) != 0) {
    throw std::runtime_error(std::string(in) + ": cannot be dequantised");
  }
}

std::vector<llama_token> ReadTokens(const char* path) {
  std::ifstream file(path);
  std::vector<llama_token> tokens;
  for (llama_token token; file >> token;) tokens.push_back(token);
  if (tokens.empty() || !file.eof()) {
    throw std::runtime_error(std::string(path) + ": not a list of token ids");
  }
  return tokens;
}

void WriteLogits(const char* model_path, const char* tokens_path, const char* out_path,
                 const Options& options) {
  const std::vector<llama_token> tokens = ReadTokens(tokens_path);
  const auto num_tokens = static_cast<uint32_t>(tokens.size());

  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  model_params.use_extra_bufts = options.repack;
  const std::unique_ptr<llama_model, void (*)(llama_model*)> model(
      llama_model_load_from_file(model_path, model_params), llama_model_free);
  if (!model) throw std::runtime_error(std::string(model_path) + ": cannot be loaded");

  llama_context_params params = llama_context_default_params();
  params.n_ctx = num_tokens;
  params.embeddings = options.pooling != LLAMA_POOLING_TYPE_NONE;
  params.pooling_type = options.pooling;
  // It pools what is in one batch.
  params.n_batch = params.embeddings ? num_tokens : std::min(options.batch, num_tokens);
  params.n_ubatch = params.embeddings ? num_tokens : std::min(options.ubatch, params.n_batch);
  params.n_threads = params.n_threads_batch = options.threads;
  params.type_k = params.type_v = options.kv;
  params.flash_attn_type =
      options.flash_attention ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
  const std::unique_ptr<llama_context, void (*)(llama_context*)> context(
      llama_init_from_model(model.get(), params), llama_free);
  if (!context) throw std::runtime_error(std::string(model_path) + ": no context");

  const bool embeds = options.pooling != LLAMA_POOLING_TYPE_NONE;
  const auto row_size =
      static_cast<size_t>(embeds ? llama_model_n_embd(model.get())
                                 : llama_vocab_n_tokens(llama_model_get_vocab(model.get())));
  std::ofstream out(out_path, std::ios::binary);
  llama_batch batch = llama_batch_init(static_cast<int32_t>(params.n_batch), 0, 1);
  for (uint32_t first = 0; first < num_tokens; first += params.n_batch) {
    batch.n_tokens = static_cast<int32_t>(std::min(params.n_batch, num_tokens - first));
    for (int32_t i = 0; i < batch.n_tokens; i++) {
      batch.token[i] = tokens[first + static_cast<uint32_t>(i)];
      batch.pos[i] = static_cast<llama_pos>(first) + i;
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = 1;
    }
    if (llama_decode(context.get(), batch) != 0) throw std::runtime_error("llama_decode failed");
    const auto write = [&](const float* row) {
      out.write(reinterpret_cast<const char*>(row),
                static_cast<std::streamsize>(row_size * sizeof(float)));
    };
    if (embeds) write(llama_get_embeddings_seq(context.get(), 0));
    for (int32_t i = 0; i < batch.n_tokens && !embeds; i++)
      write(llama_get_logits_ith(context.get(), i));
  }
  llama_batch_free(batch);
  out.close();
  if (!out) throw std::runtime_error(std::string(out_path) + ": cannot be written");
}

void LogErrors(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  llama_log_set(LogErrors, nullptr);
  llama_backend_init();
  try {
    if (command == "dequantize" && argc >= 4) {
      Dequantize(argv[2], argv[3], ParseOptions(argc, argv, 4));
    } else if (command == "logits" && argc >= 5) {
      WriteLogits(argv[2], argv[3], argv[4], ParseOptions(argc, argv, 5));
    } else {
      throw std::runtime_error("usage: dequantize IN OUT | logits MODEL TOKENS OUT [options]");
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "llama_reference: %s\n", error.what());
    return 1;
  }
  return 0;
}
