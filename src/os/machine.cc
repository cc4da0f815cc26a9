#include "os/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <limits>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <utility>

namespace trellis {
namespace {

std::optional<std::string> ReadFirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return line;
}

std::optional<size_t> ReadNumber(const std::string& path) {
  const auto line = ReadFirstLine(path);
  if (!line || line->empty() || line->find_first_not_of("0123456789") != std::string::npos)
    return std::nullopt;
  try {
    return std::stoull(*line);
  } catch (const std::exception&) {  // out of range
    return std::nullopt;
  }
}

// "Name:   123 kB" lines of /proc/meminfo and /proc/self/status.
std::optional<size_t> ReadKilobytes(const char* path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name + ":", 0) != 0) continue;
    std::istringstream fields(line.substr(name.size() + 1));
    size_t kilobytes = 0;
    if (fields >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
}

// The cores of the affinity mask, hyper-threads of one core counted once.
size_t PhysicalCoresInMask() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0)
    return std::max(1u, std::thread::hardware_concurrency());
  std::set<std::string> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const auto siblings = ReadFirstLine(base + "thread_siblings_list");
    cores.insert(siblings.value_or("cpu" + std::to_string(cpu)));
  }
  return std::max<size_t>(1, cores.size());
}

// The path of this process's group below the mount of a controller ("" is the v2 hierarchy).
std::string CgroupPath(const std::string& controller) {
  std::ifstream in("/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == ",," ? controller.empty()
                      : names.find("," + controller + ",") != std::string::npos) {
      return line.substr(second + 1);
    }
  }
  return "/";
}

std::optional<double> CpuQuota() {
  for (const std::string& dir :
       {"/sys/fs/cgroup" + CgroupPath(""), std::string("/sys/fs/cgroup")}) {
    if (const auto line = ReadFirstLine(dir + "/cpu.max")) {
      std::istringstream fields(*line);
      double quota = 0, period = 0;
      if (fields >> quota >> period && period > 0)
        return quota / period;  // "max" fails to parse: no quota
    }
  }
  for (const std::string& dir :
       {"/sys/fs/cgroup/cpu" + CgroupPath("cpu"), std::string("/sys/fs/cgroup/cpu")}) {
    const auto quota = ReadNumber(dir + "/cpu.cfs_quota_us");
    const auto period = ReadNumber(dir + "/cpu.cfs_period_us");
    if (quota && period && *period > 0)
      return static_cast<double>(*quota) / static_cast<double>(*period);
  }
  return std::nullopt;
}

// What the group may still take, its page cache counted as free; nothing when it has no limit.
std::optional<size_t> CgroupMemoryLeft() {
  struct Names {
    std::string dir, limit, usage, stat;
  };
  for (const Names& n :
       {Names{"/sys/fs/cgroup" + CgroupPath(""), "/memory.max", "/memory.current", "inactive_file"},
        Names{"/sys/fs/cgroup", "/memory.max", "/memory.current", "inactive_file"},
        Names{"/sys/fs/cgroup/memory" + CgroupPath("memory"), "/memory.limit_in_bytes",
              "/memory.usage_in_bytes", "total_inactive_file"},
        Names{"/sys/fs/cgroup/memory", "/memory.limit_in_bytes", "/memory.usage_in_bytes",
              "total_inactive_file"}}) {
    const auto limit = ReadNumber(n.dir + n.limit);
    const auto usage = ReadNumber(n.dir + n.usage);
    if (!limit || !usage) continue;
    size_t reclaimable = 0;
    std::ifstream stat(n.dir + "/memory.stat");
    std::string name;
    for (size_t value = 0; stat >> name >> value;) {
      if (name == n.stat) reclaimable = value;
    }
    const size_t used = *usage > reclaimable ? *usage - reclaimable : 0;
    return *limit > used ? *limit - used : 0;
  }
  return std::nullopt;
}

}  // namespace

size_t AvailablePhysicalCores() {
  size_t cores = PhysicalCoresInMask();
  if (const auto quota = CpuQuota()) {
    cores = std::min(cores, std::max<size_t>(1, static_cast<size_t>(std::ceil(*quota - 1e-9))));
  }
  return cores;
}

size_t AvailableMemoryBytes() {
  const size_t system = ReadKilobytes("/proc/meminfo", "MemAvailable")
                            .value_or(static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) *
                                      static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  return std::min(system, CgroupMemoryLeft().value_or(std::numeric_limits<size_t>::max()));
}

size_t PeakResidentBytes() {
  return ReadKilobytes("/proc/self/status", "VmHWM").value_or(0);
}

}  // namespace trellis
