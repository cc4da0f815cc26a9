// Files whole, cut short at every byte, split, and bent.
#include "model/gguf_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "model/tiny_gguf.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;

// A folder of its own for each test.
class GgufFileTest : public testing::Test {
 protected:
  GgufFileTest()
      : folder_(fs::path(testing::TempDir()) / ("trellis_gguf_" + std::to_string(getpid()))) {
    fs::create_directories(folder_);
  }
  ~GgufFileTest() override { fs::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // Expects that opening fails with one line that names the file and has `what` in it.
  void ExpectRefused(const std::string& path, const std::string& named, StatusCode code,
                     const std::string& what) const {
    const auto gguf = GgufFile::Open(path);
    ASSERT_FALSE(gguf.ok()) << "expected: " << what;
    const std::string& message = gguf.status().message();
    EXPECT_EQ(gguf.status().code(), code) << message;
    EXPECT_EQ(message.rfind(named, 0), 0u) << message;
    EXPECT_NE(message.find(what), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }

  const fs::path folder_;
};

TEST_F(GgufFileTest, ReadsWhatWasWritten) {
  TinyGguf made = MakeTinyModel({.type = GGML_TYPE_Q8_0});
  WriteGguf(made, Path("a.gguf"));
  const auto gguf = GgufFile::Open(Path("a.gguf"));
  ASSERT_TRUE(gguf.ok()) << gguf.status().message();
  EXPECT_EQ((*gguf)->file_bytes(), fs::file_size(Path("a.gguf")));
  ASSERT_EQ((*gguf)->tensors().size(), made.tensors.size());
  const GgufTensor* norm = (*gguf)->Find("output_norm.weight");
  ASSERT_NE(norm, nullptr);
  EXPECT_EQ(norm->depth, 64u);
  EXPECT_EQ(norm->num_rows, 1u);
  const TinyTensor& values = made.Find("output_norm.weight");
  EXPECT_EQ(std::memcmp(norm->data, values.values.data(), norm->bytes()), 0);
  const GgufTensor* down = (*gguf)->Find("blk.1.ffn_down.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->type, GGML_TYPE_Q8_0);
  EXPECT_EQ(down->depth, 96u);
  EXPECT_EQ(down->num_rows, 64u);
  EXPECT_EQ(down->row_bytes, 3 * 34u);
  EXPECT_EQ((*gguf)->Find("blk.2.ffn_down.weight"), nullptr);

  EXPECT_EQ((*gguf)->Integer("llama.block_count"), 2u);
  EXPECT_EQ((*gguf)->Float("llama.attention.layer_norm_rms_epsilon"), 0.01f);
  EXPECT_EQ((*gguf)->String("general.architecture"), "llama");
  EXPECT_FALSE((*gguf)->Integer("general.architecture"));  // another kind
  EXPECT_FALSE((*gguf)->String("llama.block_count"));
  EXPECT_FALSE((*gguf)->Float("llama.nothing"));
}

TEST_F(GgufFileTest, CutShortAnywhereItIsRefused) {
  TinyShape shape{.num_layers = 1, .vocab_size = 8};
  shape.embedding_length = shape.feed_forward_length = 32;
  WriteGguf(MakeTinyModel(shape), Path("whole.gguf"));
  std::string whole(fs::file_size(Path("whole.gguf")), '\0');
  std::ifstream(Path("whole.gguf"), std::ios::binary)
      .read(whole.data(), static_cast<std::streamsize>(whole.size()));
  const auto gguf = GgufFile::Open(Path("whole.gguf"));
  ASSERT_TRUE(gguf.ok());
  size_t data_begin = whole.size(), data_end = 0;
  for (const GgufTensor& tensor : (*gguf)->tensors()) {
    data_begin = std::min(data_begin, tensor.offset);
    data_end = std::max(data_end, tensor.offset + tensor.bytes());
  }
  // Every byte of the header; in the data, around the ends of the tensors. Padding behind the last
  // one may go.
  std::vector<size_t> sizes;
  for (size_t size = 0; size <= data_begin; size++) sizes.push_back(size);
  for (const GgufTensor& tensor : (*gguf)->tensors()) {
    for (const size_t back : {size_t{1}, tensor.bytes()}) {
      sizes.push_back(tensor.offset + tensor.bytes() - back);
    }
  }
  const std::string cut = Path("cut.gguf");
  for (const size_t size : sizes) {
    SCOPED_TRACE(size);
    std::ofstream(cut, std::ios::binary).write(whole.data(), static_cast<std::streamsize>(size));
    ExpectRefused(cut, cut, StatusCode::kDataLoss,
                  size < 4            ? "not a GGUF file"
                  : size < data_begin ? "truncated"
                                      : "truncated: tensor ");
  }
  fs::resize_file(Path("whole.gguf"), data_end);
  EXPECT_TRUE(GgufFile::Open(Path("whole.gguf")).ok());
}

TEST_F(GgufFileTest, ItIsSaidWhichTensorIsCut) {
  TinyGguf gguf = MakeTinyModel({});
  WriteGguf(gguf, Path("a.gguf"));
  fs::resize_file(Path("a.gguf"), fs::file_size(Path("a.gguf")) - 1000);
  ExpectRefused(Path("a.gguf"), Path("a.gguf"), StatusCode::kDataLoss,
                "tensor " + gguf.tensors.back().name + " ends at byte");
}

TEST_F(GgufFileTest, WhatIsNoGgufFile) {
  ExpectRefused(Path("none.gguf"), Path("none.gguf"), StatusCode::kNotFound, "No such file");
  ExpectRefused(folder_.string(), folder_.string(), StatusCode::kIo, "not a regular file");
  std::ofstream(Path("text.gguf")) << "Once upon a time";
  ExpectRefused(Path("text.gguf"), Path("text.gguf"), StatusCode::kDataLoss, "not a GGUF file");
  // A clone without its large files leaves a pointer.
  std::ofstream(Path("lfs.gguf")) << "version https://git-lfs.github.com/spec/v1\n";
  ExpectRefused(Path("lfs.gguf"), Path("lfs.gguf"), StatusCode::kDataLoss, "not a GGUF file");
}

TEST_F(GgufFileTest, SplitsAreOneFile) {
  const TinyGguf made = MakeTinyModel({});
  const auto paths = WriteGgufSplits(made, Path("s"), 3);
  WriteGguf(made, Path("one.gguf"));
  const auto split = GgufFile::Open(paths[0]);
  const auto one = GgufFile::Open(Path("one.gguf"));
  ASSERT_TRUE(split.ok()) << split.status().message();
  ASSERT_TRUE(one.ok()) << one.status().message();
  ASSERT_EQ((*split)->tensors().size(), (*one)->tensors().size());
  for (const GgufTensor& tensor : (*one)->tensors()) {
    const GgufTensor* other = (*split)->Find(tensor.name);
    ASSERT_NE(other, nullptr) << tensor.name;
    ASSERT_EQ(other->bytes(), tensor.bytes());
    EXPECT_EQ(std::memcmp(other->data, tensor.data, tensor.bytes()), 0) << tensor.name;
  }
  size_t bytes = 0;
  for (const std::string& path : paths) bytes += fs::file_size(path);
  EXPECT_EQ((*split)->file_bytes(), bytes);
}

TEST_F(GgufFileTest, SplitsThatAreNotAllThere) {
  const auto paths = WriteGgufSplits(MakeTinyModel({}), Path("s"), 3);
  ExpectRefused(paths[1], paths[1], StatusCode::kInvalidArgument, "-00001-of-00003.gguf");
  fs::rename(paths[2], Path("elsewhere"));
  ExpectRefused(paths[0], paths[2], StatusCode::kNotFound, "No such file");
  fs::copy_file(paths[1], paths[2]);
  ExpectRefused(paths[0], paths[2], StatusCode::kDataLoss, "is there twice");
  fs::remove(paths[2]);
  fs::rename(Path("elsewhere"), paths[2]);
  fs::resize_file(paths[2], fs::file_size(paths[2]) - 1000);
  ExpectRefused(paths[0], paths[2], StatusCode::kDataLoss, "truncated: tensor blk.1.");
}

TEST_F(GgufFileTest, FingerprintTellsFilesApart) {
  const auto fingerprint = [&](const TinyGguf& gguf) {
    WriteGguf(gguf, Path("f.gguf"));
    const auto opened = GgufFile::Open(Path("f.gguf"));
    TRELLIS_CHECK(opened.ok());
    return (*opened)->Fingerprint();
  };
  TinyGguf gguf = MakeTinyModel({});
  const std::string first = fingerprint(gguf);
  EXPECT_EQ(first.size(), 32u);
  EXPECT_EQ(fingerprint(gguf), first);
  gguf.keys["llama.rope.freq_base"] = 1234.0f;
  EXPECT_NE(fingerprint(gguf), first);
  gguf.keys.erase("llama.rope.freq_base");
  gguf.Find("blk.1.ffn_down.weight").values.back() += 1;
  EXPECT_NE(fingerprint(gguf), first);
  EXPECT_NE(fingerprint(MakeTinyModel({.seed = 2})), first);
}

}  // namespace
}  // namespace trellis
