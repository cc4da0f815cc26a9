#include "os/machine.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "os/machine_files.h"

namespace trellis {
namespace {

// A machine whose /proc and /sys are files of the test.
class FakeMachine : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(root_); }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& content) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << content;
  }

  const std::string root_ = testing::TempDir() + "trellis_machine_" + std::to_string(getpid());
};

TEST_F(FakeMachine, HyperThreadsOfACoreCountOnce) {
  for (int cpu = 0; cpu < 4; cpu++) {
    Write("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
          cpu % 2 == 0 ? "0,2\n" : "1,3\n");
  }
  EXPECT_EQ(CountPhysicalCores(root_, {0, 1, 2, 3}), 2u);
  EXPECT_EQ(CountPhysicalCores(root_, {0, 2}), 1u);
  EXPECT_EQ(CountPhysicalCores(root_, {0, 1, 7}), 3u);  // no topology: a core of its own
}

TEST_F(FakeMachine, SlowCoresAreNotCountedWhereThereAreFastOnes) {
  EXPECT_EQ(FastCpus(root_, {0, 1, 5}), (std::vector<int>{0, 1, 5}));  // nothing stated: all alike
  EXPECT_EQ(FastCpus(root_, {}), std::vector<int>());

  Write("/sys/devices/cpu_atom/cpus", "4-6,9\n");  // Intel
  EXPECT_EQ(FastCpus(root_, {0, 1, 4, 5, 7, 9}), (std::vector<int>{0, 1, 7}));
  EXPECT_EQ(FastCpus(root_, {4, 9}), (std::vector<int>{4, 9}));  // bound to them: then they count
  Write("/sys/devices/cpu_atom/cpus", "what-3\n");
  EXPECT_EQ(FastCpus(root_, {2, 3}), (std::vector<int>{2, 3}));

  const size_t capacities[] = {446, 446, 871, 1024};  // little, little, middle, big
  for (size_t cpu = 0; cpu < 4; cpu++) {
    Write("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/cpu_capacity",
          std::to_string(capacities[cpu]) + "\n");
  }
  EXPECT_EQ(FastCpus(root_, {0, 1, 2, 3}), (std::vector<int>{2, 3}));
  EXPECT_EQ(FastCpus(root_, {0, 1}), (std::vector<int>{0, 1}));
}

TEST_F(FakeMachine, WithoutGroupsThereIsNoLimit) {
  EXPECT_EQ(CgroupCpuQuota(root_), std::nullopt);
  EXPECT_EQ(CgroupMemoryLeft(root_), std::nullopt);
}

TEST_F(FakeMachine, Version2TakesTheTightestGroupOfThePath) {
  Write("/proc/self/cgroup", "0::/user.slice/app.scope\n");
  Write("/sys/fs/cgroup/user.slice/cpu.max", "150000 100000\n");
  Write("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
  EXPECT_EQ(CgroupCpuQuota(root_), 1.5);

  Write("/sys/fs/cgroup/user.slice/memory.max", "1000000\n");
  Write("/sys/fs/cgroup/user.slice/memory.current", "900000\n");
  Write("/sys/fs/cgroup/user.slice/app.scope/memory.max", "max\n");
  Write("/sys/fs/cgroup/user.slice/app.scope/memory.current", "5\n");
  EXPECT_EQ(CgroupMemoryLeft(root_), 100000u);
  Write("/sys/fs/cgroup/user.slice/memory.stat", "anon 7\ninactive_file 300000\nslab 1\n");
  EXPECT_EQ(CgroupMemoryLeft(root_), 400000u);
  Write("/sys/fs/cgroup/user.slice/memory.current", "2000000\n");
  EXPECT_EQ(CgroupMemoryLeft(root_), 0u);
}

TEST_F(FakeMachine, AContainerSeesOnlyTheTopOfTheMount) {
  Write("/proc/self/cgroup", "0::/docker/0123abcd\n");
  Write("/sys/fs/cgroup/cpu.max", "300000 100000\n");
  EXPECT_EQ(CgroupCpuQuota(root_), 3.0);
}

TEST_F(FakeMachine, Version1HasAHierarchyPerController) {
  Write("/proc/self/cgroup", "5:cpu,cpuacct:/a/b\n4:memory:/m\n0::/\n");
  Write("/sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuQuota(root_), std::nullopt);
  Write("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "50000\n");
  Write("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuQuota(root_), 0.5);

  Write("/sys/fs/cgroup/memory/m/memory.limit_in_bytes", "4096\n");
  Write("/sys/fs/cgroup/memory/m/memory.usage_in_bytes", "4000\n");
  Write("/sys/fs/cgroup/memory/m/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n");
  EXPECT_EQ(CgroupMemoryLeft(root_), 1096u);
}

TEST_F(FakeMachine, GarbageIsNoLimit) {
  Write("/proc/self/cgroup", "nonsense\n::\n0:");
  Write("/sys/fs/cgroup/cpu.max", "7\n");
  Write("/sys/fs/cgroup/memory.max", "12x\n");
  Write("/sys/fs/cgroup/memory.current", "99999999999999999999999999\n");
  EXPECT_EQ(CgroupCpuQuota(root_), std::nullopt);
  EXPECT_EQ(CgroupMemoryLeft(root_), std::nullopt);
}

TEST_F(FakeMachine, KilobyteLines) {
  Write("/meminfo", "MemTotal:  9 kB\nMemAvailable:    123 kB\n");
  EXPECT_EQ(ReadKilobyteLine(root_ + "/meminfo", "MemAvailable"), 123u * 1024);
  EXPECT_EQ(ReadKilobyteLine(root_ + "/meminfo", "Mem"), std::nullopt);
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
