#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "os/machine.h"
#include "os/mapped_file.h"

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
  moved.DontNeed(0, 5);
  EXPECT_EQ(static_cast<char>(moved.bytes()[0]), 'h');
  std::remove(path.c_str());
}

TEST(MappedFileTest, ErrorsNameThePath) {
  const auto missing = MappedFile::Open("/no/such/file.gguf");
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  EXPECT_NE(missing.status().message().find("/no/such/file.gguf"), std::string::npos);
  EXPECT_EQ(MappedFile::Open(testing::TempDir()).status().code(), StatusCode::kIo);
}

TEST(MappedFileTest, AnEmptyFileHasNoBytes) {
  const std::string path = TempPath("empty");
  std::ofstream{path};
  auto opened = MappedFile::Open(path);
  ASSERT_TRUE(opened.ok());
  EXPECT_TRUE(opened->bytes().empty());
  std::remove(path.c_str());
}

TEST(MachineTest, CoresFollowTheAffinityMask) {
  EXPECT_GE(AvailablePhysicalCores(), 1u);
  EXPECT_LE(AvailablePhysicalCores(), std::max(1u, std::thread::hardware_concurrency()));
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (CPU_ISSET(cpu, &before)) {
      CPU_SET(cpu, &one);
      break;
    }
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  EXPECT_EQ(AvailablePhysicalCores(), 1u);
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(MachineTest, MemoryIsPlausible) {
  EXPECT_GT(AvailableMemoryBytes(), 1u << 20);
  EXPECT_GT(PeakResidentBytes(), 1u << 20);
}

}  // namespace
}  // namespace trellis
