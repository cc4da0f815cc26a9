#include "os/machine.h"

#include <malloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "os/machine_files.h"

namespace trellis {
namespace {

// The logical CPUs of the affinity mask; all of them where it cannot be read.
std::vector<int> AllowedCpus() {
  // A mask of the usual size is refused on machines with more CPUs than it holds.
  for (size_t num = CPU_SETSIZE; num <= 64 * CPU_SETSIZE; num *= 2) {
    cpu_set_t* mask = CPU_ALLOC(num);
    const size_t bytes = CPU_ALLOC_SIZE(num);
    CPU_ZERO_S(bytes, mask);
    const bool read = sched_getaffinity(0, bytes, mask) == 0;
    std::vector<int> cpus;
    for (size_t cpu = 0; read && cpu < num; cpu++) {
      if (CPU_ISSET_S(cpu, bytes, mask)) cpus.push_back(static_cast<int>(cpu));
    }
    CPU_FREE(mask);
    if (read) return cpus;
  }
  std::vector<int> cpus(std::max(1u, std::thread::hardware_concurrency()));
  for (size_t i = 0; i < cpus.size(); i++) cpus[i] = static_cast<int>(i);
  return cpus;
}

}  // namespace

size_t AvailablePhysicalCores() {
  size_t cores = std::max<size_t>(1, CountPhysicalCores("", FastCpus("", AllowedCpus())));
  if (const auto quota = CgroupCpuQuota("")) {
    // A part of a CPU still needs a thread; the small term forgives the division's rounding.
    cores = std::min(cores, std::max<size_t>(1, static_cast<size_t>(std::ceil(*quota - 1e-9))));
  }
  return cores;
}

size_t AvailableMemoryBytes() {
  const size_t system = ReadKilobyteLine("/proc/meminfo", "MemAvailable")
                            .value_or(static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) *
                                      static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  return std::min(system, CgroupMemoryLeft("").value_or(std::numeric_limits<size_t>::max()));
}

size_t PeakResidentBytes() {
  return ReadKilobyteLine("/proc/self/status", "VmHWM").value_or(0);
}

void ReturnFreeMemory() {
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

}  // namespace trellis
