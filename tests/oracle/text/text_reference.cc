// text_reference MODEL REQUESTS ANSWERS: llama.cpp itself, as a program.
//
// Reads records (records.h): the name of a question, then what belongs to it. Writes the answers in
// order:
//   vocab                      1: "bos eos add_bos add_eos", the suppressed tokens, all that end
//                              generation, one list of numbers a line
//   pieces                     2 for each token: without and with special tokens
//   text TEXT                  4: ids, by (add_special, parse_special) = 00 01 10 11;
//                              2: the ids of 01 as text, without and with special tokens.
//                              Six times "threw" where llama_tokenize throws, as it does for code
//                              points beyond Unicode
//   chat TEMPLATE MESSAGES TOOLS   3: "ok" or "error"; the prompt, or what was wrong; its ids
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "chat.h"
#include "common.h"
#include "json.h"
#include "llama.h"
#include "records.h"

namespace {

std::string Join(const std::vector<llama_token>& tokens) {
  std::string text;
  for (const llama_token token : tokens) text += std::to_string(token) + " ";
  return text;
}

std::vector<llama_token> Tokenize(const llama_vocab* vocab, const std::string& text,
                                  bool add_special, bool parse_special) {
  std::vector<llama_token> tokens(4 * text.size() + 8);  // an invalid byte is three of U+FFFD
  const int32_t count =
      llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                     static_cast<int32_t>(tokens.size()), add_special, parse_special);
  if (count < 0) {
    std::fprintf(stderr, "text_reference: %d tokens from %zu bytes\n", -count, text.size());
    std::exit(1);
  }
  tokens.resize(static_cast<size_t>(count));
  return tokens;
}

std::string Detokenize(const llama_vocab* vocab, const std::vector<llama_token>& tokens,
                       bool special) {
  const auto count = static_cast<int32_t>(tokens.size());
  // What it asks for is what it needs before it tidies up some spaces.
  const int32_t most = -llama_detokenize(vocab, tokens.data(), count, nullptr, 0, false, special);
  std::string text(static_cast<size_t>(most < 0 ? 0 : most), '\0');
  const int32_t size =
      llama_detokenize(vocab, tokens.data(), count, text.data(), most, false, special);
  text.resize(static_cast<size_t>(size));
  return text;
}

std::string DescribeVocab(const llama_vocab* vocab) {
  std::vector<llama_token> ends;
  for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
    if (llama_vocab_is_eog(vocab, token)) ends.push_back(token);
  }
  int32_t num_suppressed = 0;
  const llama_token* suppressed = llama_vocab_get_suppress_tokens(vocab, &num_suppressed);
  return Join({llama_vocab_bos(vocab), llama_vocab_eos(vocab), llama_vocab_get_add_bos(vocab),
               llama_vocab_get_add_eos(vocab)}) +
         "\n" + Join({suppressed, suppressed + num_suppressed}) + "\n" + Join(ends) + "\n";
}

std::string PieceOrNothing(const llama_vocab* vocab, llama_token token) {
  return token == LLAMA_TOKEN_NULL ? "" : common_token_to_piece(vocab, token, true);
}

void AnswerText(const llama_vocab* vocab, const std::string& text,
                std::vector<std::string>& answers) {
  std::vector<std::string> mine;
  try {
    for (const bool add : {false, true}) {
      for (const bool parse : {false, true})
        mine.push_back(Join(Tokenize(vocab, text, add, parse)));
    }
    const std::vector<llama_token> tokens = Tokenize(vocab, text, false, true);
    mine.push_back(Detokenize(vocab, tokens, false));
    mine.push_back(Detokenize(vocab, tokens, true));
  } catch (const std::exception&) {
    mine.assign(6, "threw");
  }
  answers.insert(answers.end(), mine.begin(), mine.end());
}

// The model says whether BOS and EOS are added.
void AnswerChat(const llama_model* model, const std::string& source, const std::string& messages,
                const std::string& tools, std::vector<std::string>& answers) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  try {
    const auto templates =
        common_chat_templates_init(model, source, PieceOrNothing(vocab, llama_vocab_bos(vocab)),
                                   PieceOrNothing(vocab, llama_vocab_eos(vocab)));
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(common_json::parse(messages));
    if (!tools.empty()) {
      inputs.tools = common_chat_tools_parse_oaicompat(common_json::parse(tools));
    }
    std::string prompt;
    try {
      prompt = common_chat_templates_apply(templates.get(), inputs).prompt;
    } catch (const std::exception& error) {
      // Its parser of answers does not get along with every template; that is not the question.
      if (std::string(error.what()).find("generate parser") == std::string::npos) throw;
      inputs.force_pure_content = true;
      prompt = common_chat_templates_apply(templates.get(), inputs).prompt;
    }
    answers.insert(answers.end(), {"ok", prompt, Join(Tokenize(vocab, prompt, true, true))});
  } catch (const std::exception& error) {
    answers.insert(answers.end(), {"error", error.what(), ""});
  }
}

void AnswerAll(const llama_model* model, const std::vector<std::string>& requests,
               std::vector<std::string>& answers) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string& question = requests[i];
    if (question == "vocab") {
      answers.push_back(DescribeVocab(vocab));
    } else if (question == "pieces") {
      for (llama_token token = 0; token < llama_vocab_n_tokens(vocab); ++token) {
        answers.push_back(common_token_to_piece(vocab, token, false));
        answers.push_back(common_token_to_piece(vocab, token, true));
      }
    } else if (question == "text") {
      AnswerText(vocab, requests.at(++i), answers);
    } else if (question == "chat") {
      AnswerChat(model, requests.at(i + 1), requests.at(i + 2), requests.at(i + 3), answers);
      i += 3;
    } else {
      std::fprintf(stderr, "text_reference: no question '%s'\n", question.c_str());
      std::exit(1);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  llama_model* model = llama_model_load_from_file(argv[1], params);
  if (model == nullptr) {
    std::fprintf(stderr, "text_reference: cannot load %s\n", argv[1]);
    return 1;
  }
  std::vector<std::string> answers;
  AnswerAll(model, ReadRecords(argv[2]), answers);
  WriteRecords(argv[3], answers);
  llama_model_free(model);
  return 0;
}
