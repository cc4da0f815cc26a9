#include "corpus.h"

#include <cstdint>
#include <random>

namespace trellis {
namespace {

std::string Repeat(const std::string& text, size_t times) {
  std::string repeated;
  for (size_t i = 0; i < times; ++i) repeated += text;
  return repeated;
}

std::vector<std::string> WrittenDown() {
  using std::string_literals::operator""s;
  std::vector<std::string> texts = {
      "",
      " ",
      "a",
      "Hello, world!",
      " Hello  World ",
      "The quick brown fox jumps over the lazy dog. It's what they've done, I'll say; we'd 'LL.",
      "1 12 123 1234 12345 123456 3.14159 1e-9 0xFF 1,000,000 ½ ¾ ² Ⅳ ٣٤٥ १२३",
      // Emoji: ZWJ sequences, flags, skin tones, keycaps, variation selectors.
      // clang-format off
      "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪🇫🇷🇯🇵 👍🏻👍🏿 1️⃣ #️⃣ ☺ ☺️ 😀😃😄😁🚀🦙",
      // clang-format on
      // Scripts.
      "中文分词是一个难题。日本語のテキスト、カタカナとひらがな。한국어 문장입니다. 繁體字",
      "Привет, мир! Καλημέρα κόσμε. שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดีชาวโลก Xin chào",
      "e\u0301 é ö o\u0308 ﬁ ﬀ Å Ａ ㎏ Ωμέγα İi ıI ß ẞ \u200b\u200d\ufeff\u00ad zero width",
      "\u00a0no-break\u2003em\u3000ideographic\u2028line\u2029paragraph\u0085next",
      // Code.
      "int main(int argc, char** argv) {\n\tfor (size_t i = 0; i < n; ++i) {\n\t\tx[i] += "
      "y[i] * 0.5f;  // comment\n\t}\n\treturn 0;\n}\n",
      "def f(x: int) -> str:\n    \"\"\"Doc.\"\"\"\n    if x != 0 and not x % 2:\n        return "
      "f'{x!r:>10}'\n    return None\r\n\r\n\r\n# \\u1234 \\n \\\\ ```py\n```\n",
      "SELECT * FROM t WHERE a >= 1 AND b <> 'x''y'; -- {\"k\": [1, 2, {\"n\": null}]} </div><p>",
      "https://example.org/a/b?c=d&e=%20f#g foo@bar.example C:\\dir\\file.txt /usr/lib/x.so.1",
      // White space.
      "\n",
      "\n\n",
      "\t",
      "\r\n",
      " \n",
      "\n ",
      "\t\t\n\n  \n",
      Repeat(" ", 2),
      Repeat(" ", 15),
      Repeat(" ", 16),
      Repeat(" ", 17),
      Repeat(" ", 31),
      Repeat(" ", 32),
      Repeat(" ", 33),
      Repeat(" ", 4000),
      Repeat("\n", 29),
      Repeat("\n", 31),
      Repeat("\n", 32),
      Repeat("\n", 33),
      Repeat("\n", 63),
      Repeat("\n", 4000),
      Repeat("\t", 33),
      Repeat(" \n", 500),
      Repeat("\r\n", 500),
      "a" + Repeat(" ", 100) + "b",
      "\n" + Repeat(" ", 64) + "x\n" + Repeat("\t", 64) + "y",
      "▁ ▁▁ _ ▁a a▁ " + Repeat("▁", 40),
      // Control characters.
      "\0"s,
      "a\0b\0\0c"s,
      "\x01\x02\x03\x07\x08\x0b\x0c\x0e\x1b[31m\x1f\x7f",
      "\u0080\u009f",
      // Special tokens, and what only looks like them.
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
      "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n<eos><pad><unk><mask>",
      "<s>[INST] <<SYS>>\nx\n<</SYS>> hi [/INST] ok </s>",
      "<|endoftext|><|endoftext|>",
      "<|im_start|",
      "|im_start|>",
      "< |im_start|>",
      "<|im_start|><",
      "<<|im_end|>>",
      "<|IM_START|>",
      "<|im_start|><|im_start|>",
      "  <|im_end|>  x  <|im_end|>\n\n",
      "a<|im_end|>b<|im_end|>c",
      "<|im_<|im_start|>start|>",
      "<|fim_prefix|>x<|fim_suffix|>y<|fim_middle|>",
      "<repo_name>a<file_sep>b<reponame><filename><gh_stars><issue_start>",
      "<tool_call>{\"name\": \"f\"}</tool_call><think>hm</think>",
      "<unused0><unused1><unused99><unused6241><unused99999>[multimodal]",
      "<h1>x</h1><table><tr><td>1</td></tr></table><code>a</code><ul><li>b</li></ul><i><b><strong>",
      "<0x00><0x0A><0xFF><0x41>",
      "[UNK][CLS][SEP][PAD][MASK]",
      "<|begin_of_text|><|eot_id|>",
      "<0xE2><0x96><0x81>",
      "<start_of_image><end_of_image><image_soft_token>",
      Repeat("<|im_end|>", 300),
      Repeat("<", 2000),
      Repeat("<|", 1000),
      Repeat("<eos>x", 200),
      // Very long words.
      Repeat("a", 3000),
      Repeat("ab", 1500),
      Repeat("Zz9", 1000),
      Repeat("é", 1500),
      Repeat("漢", 1000),
      Repeat("🦙", 700),
      Repeat("!", 3000),
      Repeat("=-", 1500),
      Repeat("0123456789", 300),
      Repeat("antidisestablishmentarianism", 60),
      Repeat("donaudampfschifffahrt", 50) + " " + Repeat("x", 999),
      // Invalid UTF-8: lone, missing and overlong bytes, surrogates, beyond Unicode.
      "\x80",
      "\xff",
      "\xfe\xff",
      "a\x80z",
      "\xc3",
      "\xc3(",
      "\xe2\x82",
      "\xe2\x28\xa1",
      "\xf0\x9f\x98",
      "\xf0\x9f\x98z",
      "\xf0\x28\x8c\xbc",
      "\xc0\xaf",
      "\xe0\x80\xaf",
      "\xed\xa0\x80",
      "\xed\xa0\xbd\xed\xb8\x80",
      "\xf4\x90\x80\x80",
      "\xf8\x88\x80\x80\x80",
      Repeat("\xff", 300),
      Repeat("\xf0\x9f", 200),
      "ok \xe4\xb8 ok \xe4\xb8\xad ok",
      "\xef\xbf\xbd",
      "<|im_start|>\xff<|im_end|>\xc3",
      "<start_of_turn>\x80<end_of_turn>",
  };
  return texts;
}

}  // namespace

std::vector<std::string> TokenizerCorpus() {
  std::vector<std::string> texts = WrittenDown();
  const size_t num_written = texts.size();
  std::mt19937 random(20240229);  // NOLINT: the same texts on each run
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  // Cuts of several texts in a row: borders where no one would have put them.
  for (int i = 0; i < 600; ++i) {
    std::string mixed;
    for (size_t pieces = 1 + below(6); pieces > 0; --pieces) {
      const std::string& from = texts[below(num_written)];
      if (from.empty()) continue;
      mixed += from.substr(below(from.size()), 1 + below(24));
    }
    texts.push_back(std::move(mixed));
  }
  // Any code points, and any bytes.
  for (int i = 0; i < 200; ++i) {
    std::string any;
    for (size_t size = below(60); size > 0; --size) {
      any += i % 2 == 0 ? static_cast<char>(below(256)) : static_cast<char>(32 + below(95));
    }
    texts.push_back(std::move(any));
  }
  return texts;
}

}  // namespace trellis
