// A byte that chooses the vocabulary, then texts between zero bytes: all but the last are stop
// strings. Any bytes have tokens, which spell them again, and the stream decoder gives the same
// text however it was cut into tokens.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "text/stream_decoder.h"
#include "text/test_vocab.h"
#include "text/utf8.h"

namespace {

using namespace trellis;

const std::vector<TestToken> kSpecial = {
    {"<|im_start|>", TokenType::kControl}, {"<|im_end|>", TokenType::kControl},
    {"<|im", TokenType::kUserDefined},     {"aa", TokenType::kUserDefined},
    {"aaaa", TokenType::kUserDefined},     {"\n\n", TokenType::kUserDefined}};

const Tokenizer& Vocabulary(bool pieces) {
  static const std::unique_ptr<Tokenizer> tokenizers[] = {Load(ByteVocab(kSpecial)),
                                                          Load(PieceVocab(kSpecial))};
  return *tokenizers[pieces ? 1 : 0];
}

// As GPT-2's vocabularies have it (clean_up_tokenization_spaces), decoding leaves out the space
// before a punctuation mark; where exactly is llama.cpp's to say, and the oracle tests'.
std::string WithoutSpaces(std::string text) {
  std::erase(text, ' ');
  return text;
}

std::string Repaired(const std::string& bytes) {
  std::string out;
  Utf8Repair repair;
  repair.Feed(bytes, out);
  repair.Finish(out);
  return out;
}

std::string Decode(StreamDecoder decoder, const std::vector<TokenId>& tokens) {
  std::string text;
  for (const TokenId token : tokens) {
    const std::string piece = decoder.Push(token);
    TRELLIS_CHECK(Repaired(piece) == piece);
    text += piece;
  }
  return text + decoder.Finish() + "|" + decoder.stop_hit();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const bool pieces = data[0] % 2 == 1;
  const Tokenizer& tokenizer = Vocabulary(pieces);
  std::vector<std::string> texts(1);
  for (size_t i = 1; i < size; ++i) {
    if (data[i] == 0) {
      texts.emplace_back();
    } else {
      texts.back() += static_cast<char>(data[i]);
    }
  }
  const std::string text = texts.back();
  texts.pop_back();

  for (const auto special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    const std::vector<TokenId> tokens = tokenizer.Encode(text, AddSpecial::kNo, special);
    // GPT-2's vocabularies see invalid UTF-8 as U+FFFD; SentencePiece may start with a space.
    const std::string spelled = tokenizer.Decode(tokens, SpecialTokens::kParse);
    if (!pieces && Repaired(text) == text) {
      TRELLIS_CHECK(WithoutSpaces(spelled) == WithoutSpaces(text));
    }
    TRELLIS_CHECK(tokens.size() <= 4 * text.size() + 1);
  }

  std::vector<TokenId> bytes;  // ids 0 to 255, or after <unk>
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c) + (pieces ? 1 : 0));
  const std::string one_by_one =
      Decode(StreamDecoder(tokenizer, texts, SpecialTokens::kParse), bytes);
  if (!pieces && Repaired(text) == text) {
    const auto tokens = tokenizer.Encode(text, AddSpecial::kNo, SpecialTokens::kParse);
    TRELLIS_CHECK(Decode(StreamDecoder(tokenizer, texts, SpecialTokens::kParse), tokens) ==
                  one_by_one);
  }
  return 0;
}
