#include "model/pack_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "model/model.h"
#include "model/tiny_gguf.h"
#include "os/buffer.h"

namespace trellis {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), std::ssize(bytes));
}

class PackCacheTest : public testing::Test {
 protected:
  PackCacheTest()
      : root_(fs::path(testing::TempDir()) / ("trellis_pack_" + std::to_string(getpid()))),
        folder_((root_ / "made" / "when needed").string()),
        pool_(ComputePool::Create(2).value()) {
    fs::create_directories(root_);
  }
  ~PackCacheTest() override { fs::remove_all(root_); }

  static std::vector<std::byte> Image(size_t bytes, uint32_t seed = 1) {
    std::vector<std::byte> image(bytes);
    for (std::byte& b : image)
      b = static_cast<std::byte>((seed = seed * 1664525 + 1013904223) >> 24);
    return image;
  }
  bool Has(const PackCache& cache, const std::string& key, const std::vector<std::byte>& image) {
    const auto found = cache.Find(key, image.size(), *pool_);
    return found &&
           std::equal(image.begin(), image.end(), found->bytes.begin(), found->bytes.end());
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) files.push_back(entry.path());
    return files;
  }

  const fs::path root_;
  const std::string folder_;
  const std::unique_ptr<ComputePool> pool_;
};

TEST_F(PackCacheTest, FindsWhatWasStoredUnderTheSameKeyAndSize) {
  const PackCache cache(folder_);
  for (const size_t bytes : {size_t{64}, size_t{2} << 20, (size_t{5} << 20) + 64}) {
    const std::vector<std::byte> image = Image(bytes);
    const std::string key = "key of " + std::to_string(bytes);
    EXPECT_FALSE(Has(cache, key, image));
    ASSERT_TRUE(cache.Store(key, image, *pool_).ok());
    EXPECT_TRUE(Has(cache, key, image));
    const auto found = cache.Find(key, bytes, *pool_);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found->bytes.data()) % 64, 0u);
    EXPECT_FALSE(cache.Find(key + " ", bytes, *pool_));
    EXPECT_FALSE(cache.Find(key, bytes - 64, *pool_));
    EXPECT_FALSE(cache.Find(key, bytes + 64, *pool_));
    ASSERT_TRUE(cache.Store(key, Image(bytes, 7), *pool_).ok());  // replaces it
    EXPECT_TRUE(Has(cache, key, Image(bytes, 7)));
  }
}

TEST_F(PackCacheTest, AFileOfAnotherKeyInItsPlaceIsNotUsed) {
  const PackCache cache(folder_);
  const std::vector<std::byte> image = Image(4096);
  ASSERT_TRUE(cache.Store("a", image, *pool_).ok());
  fs::rename(cache.PathOf("a"), cache.PathOf("b"));
  EXPECT_FALSE(cache.Find("b", image.size(), *pool_));
}

TEST_F(PackCacheTest, EveryDamagedByteIsSeen) {
  const PackCache cache(folder_);
  const std::vector<std::byte> image = Image((size_t{2} << 20) + 640);
  ASSERT_TRUE(cache.Store("key", image, *pool_).ok());
  const std::string whole = ReadFile(cache.PathOf("key"));
  const size_t front = whole.size() - image.size();
  std::vector<size_t> places = {front, front + 1000, front + (2u << 20) - 1, front + (2u << 20),
                                whole.size() - 1};
  for (size_t at = 0; at < 128; at += 5) places.push_back(at);  // header, key, checksums
  places.push_back(front - 1);
  for (const size_t at : places) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    WriteFile(cache.PathOf("key"), damaged);
    EXPECT_FALSE(cache.Find("key", image.size(), *pool_)) << "byte " << at;
  }
  for (const size_t size : {size_t{0}, size_t{10}, front, whole.size() - 1}) {
    WriteFile(cache.PathOf("key"), whole.substr(0, size));
    EXPECT_FALSE(cache.Find("key", image.size(), *pool_)) << size << " bytes";
  }
  WriteFile(cache.PathOf("key"), whole + "x");
  EXPECT_FALSE(cache.Find("key", image.size(), *pool_));
  WriteFile(cache.PathOf("key"), whole);
  EXPECT_TRUE(Has(cache, "key", image));
}

TEST_F(PackCacheTest, TheLeastRecentlyUsedGoWhenTheLimitIsReached) {
  const std::vector<std::byte> image = Image(40000);
  const PackCache cache(folder_, 100000);  // two files beside the new one
  const auto age = [&](const std::string& path, int hours) {
    fs::last_write_time(path, fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  int hours = 10;
  for (const char* key : {"a", "b", "c"}) {
    ASSERT_TRUE(cache.Store(key, image, *pool_).ok());
    age(cache.PathOf(key), hours--);
  }
  EXPECT_TRUE(Has(cache, "a", image));  // now it is the last one used
  WriteFile(folder_ + "/dead.packed.1.unfinished", "x");
  age(folder_ + "/dead.packed.1.unfinished", 2);
  WriteFile(folder_ + "/alive.packed.2.unfinished", "x");
  WriteFile(folder_ + "/somebody's notes", std::string(200000, 'x'));
  ASSERT_TRUE(cache.Store("d", image, *pool_).ok());
  EXPECT_TRUE(Has(cache, "a", image));
  EXPECT_FALSE(Has(cache, "b", image));
  EXPECT_TRUE(Has(cache, "c", image));
  EXPECT_TRUE(Has(cache, "d", image));
  EXPECT_FALSE(fs::exists(folder_ + "/dead.packed.1.unfinished"));
  EXPECT_TRUE(fs::exists(folder_ + "/alive.packed.2.unfinished"));
  EXPECT_TRUE(fs::exists(folder_ + "/somebody's notes"));
}

TEST_F(PackCacheTest, AWriteThatFailsLeavesNothing) {
  const PackCache cache(folder_);
  const std::vector<std::byte> image = Image(size_t{4} << 20);
  ASSERT_TRUE(cache.Store("kept", image, *pool_).ok());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 3 << 20, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = cache.Store("key", image, *pool_);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_NE(status.message().find(folder_), std::string::npos) << status.message();
  EXPECT_EQ(Files(), std::vector<fs::path>{cache.PathOf("kept")});
}

TEST_F(PackCacheTest, AFolderThatCannotBeMadeIsNamed) {
  WriteFile(root_ / "made", "a file");
  const PackCache cache(folder_);
  const Status status = cache.Store("key", Image(64), *pool_);
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_NE(status.message().find(folder_), std::string::npos) << status.message();
  EXPECT_FALSE(cache.Find("key", 64, *pool_));
}

// --- Loading a model through it ---

class PackedModelTest : public PackCacheTest {
 protected:
  PackedModelTest() : path_((root_ / "model.gguf").string()) {}

  void Write(uint32_t seed, ggml_type type = GGML_TYPE_Q4_K) {
    WriteGguf(MakeTinyModel({.embedding_length = 256,
                             .feed_forward_length = 512,
                             .head_dim = 64,
                             .type = type,
                             .seed = seed}),
              path_);
  }

  struct Loaded {
    bool packed_before;
    std::vector<float> logits;
    std::string warning;
    bool operator==(const Loaded&) const = default;
  };
  Loaded Load(const std::string& folder) {
    Loaded loaded;
    const LoadOptions options{.pack_cache = folder,
                              .warn = [&](const std::string& what) { loaded.warning = what; }};
    const auto model = Model::Load(path_, *AvailableKernels().back(), *pool_, options);
    EXPECT_TRUE(model.ok()) << model.status().message();
    loaded.packed_before = (*model)->spec().packed_before;
    Buffer page = Buffer::Allocate((*model)->page_layout().page_bytes()).value();
    std::byte* const pages[] = {page.data()};
    const TokenId tokens[] = {5, 17, 3, 60};
    const size_t logit_rows[] = {0, 3};
    const SequenceRows rows{.pages = pages, .tokens = tokens, .logit_rows = logit_rows};
    loaded.logits.resize(2 * (*model)->spec().vocab_size);
    (*model)->Forward({&rows, 1}, loaded.logits.data());
    return loaded;
  }
  Loaded Expected() { return Load(""); }
  void ExpectPackedAnew(const char* why) {
    SCOPED_TRACE(why);
    Loaded expected = Expected();
    EXPECT_EQ(Load(folder_), expected);
    expected.packed_before = true;
    EXPECT_EQ(Load(folder_), expected);  // and it was stored again
  }

  const std::string path_;
};

TEST_F(PackedModelTest, TheSecondStartHasTheSameBits) {
  for (const ggml_type type :
       {GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_Q4_1, GGML_TYPE_IQ4_XS, GGML_TYPE_BF16}) {
    Write(1, type);
    ExpectPackedAnew(ggml_type_name(type));
  }
}

TEST_F(PackedModelTest, WithoutAFolderNothingIsStored) {
  Write(1);
  EXPECT_FALSE(Load("").packed_before);
  EXPECT_FALSE(Load("").packed_before);
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(PackedModelTest, ADamagedOrShortFileIsRebuilt) {
  Write(1);
  Load(folder_);
  ASSERT_EQ(Files().size(), 1u);
  const fs::path file = Files()[0];
  std::string bytes = ReadFile(file);
  bytes[bytes.size() - 5000] ^= 1;
  WriteFile(file, bytes);
  ExpectPackedAnew("damaged");
  WriteFile(file, ReadFile(file).substr(0, bytes.size() / 2));
  ExpectPackedAnew("short");
}

TEST_F(PackedModelTest, AnotherModelInItsPlaceIsNotTakenForIt) {
  Write(1);
  Load(folder_);
  Write(2);
  ExpectPackedAnew("other weights");
}

// What no key can tell: a program that packs differently wrote this.
TEST_F(PackedModelTest, AnImageThatPackingWouldNotMakeIsNotUsed) {
  Write(1);
  Load(folder_);
  const fs::path file = Files()[0];
  const std::string bytes = ReadFile(file);
  uint64_t key_bytes = 0, image_bytes = 0;  // after the magic
  std::memcpy(&key_bytes, bytes.data() + 16, 8), std::memcpy(&image_bytes, bytes.data() + 24, 8);
  const std::string key = bytes.substr(48, key_bytes);
  const PackCache cache(folder_);
  ASSERT_EQ(cache.PathOf(key), file.string());
  std::vector<std::byte> image(image_bytes);
  std::memcpy(image.data(), bytes.data() + bytes.size() - image_bytes, image_bytes);
  ASSERT_TRUE(Has(cache, key, image));
  for (std::byte& b : image) b ^= std::byte{1};
  ASSERT_TRUE(cache.Store(key, image, *pool_).ok());
  ExpectPackedAnew("another layout");
}

TEST_F(PackedModelTest, AFolderThatCannotBeMadeIsAWarning) {
  Write(1);
  WriteFile(root_ / "made", "a file");
  Loaded loaded = Load(folder_);
  EXPECT_NE(loaded.warning.find(folder_), std::string::npos) << loaded.warning;
  loaded.warning.clear();
  EXPECT_EQ(loaded, Expected());
}

}  // namespace
}  // namespace trellis
