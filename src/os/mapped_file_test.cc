#include "os/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>

namespace trellis {
namespace {

std::string TempPath(const char* name) {
  return testing::TempDir() + "/trellis_" + std::to_string(getpid()) + "_" + name;
}

TEST(MappedFileTest, MapsTheBytesAndSurvivesAMove) {
  const std::string path = TempPath("mapped");
  std::ofstream(path) << "hello";
  auto opened = MappedFile::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  MappedFile file = std::move(*opened);
  MappedFile moved = std::move(file);
  ASSERT_EQ(moved.bytes().size(), 5u);
  EXPECT_EQ(static_cast<char>(moved.bytes()[4]), 'o');
  std::remove(path.c_str());
}

TEST(MappedFileTest, AdviceNeverChangesWhatIsRead) {
  const std::string path = TempPath("advised");
  const std::string content(3 * 65536 + 77, 'x');
  std::ofstream(path) << content;
  const auto opened = MappedFile::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status().message();
  for (const size_t offset : {size_t{0}, size_t{1}, size_t{70000}, content.size()}) {
    opened->DontNeed(offset, content.size() - offset);
    opened->DontNeed(offset, 0);
  }
  for (const std::byte b : opened->bytes()) ASSERT_EQ(static_cast<char>(b), 'x');
  std::remove(path.c_str());
}

TEST(MappedFileTest, ErrorsNameThePath) {
  const auto missing = MappedFile::Open("/no/such/file.gguf");
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("/no/such/file.gguf"), std::string::npos);
  EXPECT_EQ(MappedFile::Open(testing::TempDir()).status().code(), StatusCode::kIo);
}

TEST(MappedFileTest, APipeIsNotWaitedFor) {
  const std::string path = TempPath("pipe");
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_EQ(MappedFile::Open(path).status().message(), path + ": not a regular file");
  std::remove(path.c_str());
}

TEST(MappedFileTest, AnEmptyFileHasNoBytes) {
  const std::string path = TempPath("empty");
  std::ofstream{path};
  auto opened = MappedFile::Open(path);
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->bytes().empty());
  std::remove(path.c_str());
}

}  // namespace
}  // namespace trellis
