#include "os/machine_files.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>

namespace trellis {
namespace {

std::optional<std::string> ReadFirstLine(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  if (!std::getline(in, line)) return std::nullopt;
  return line;
}

// A file that is one number; "max", "-1" and whatever else are none.
std::optional<size_t> ReadNumber(const std::string& path) {
  const std::string line = ReadFirstLine(path).value_or("");
  size_t number = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), number);
  if (error != std::errc() || end != line.data() + line.size()) return std::nullopt;
  return number;
}

// "0-3,8,10-11"; what cannot be read ends the list.
std::set<int> ParseCpuList(const std::string& text) {
  std::set<int> cpus;
  std::istringstream in(text);
  for (int first = 0; in >> first;) {
    int last = first;
    if (in.peek() == '-') in.ignore(), in >> last;
    for (int cpu = first; cpu <= last && cpus.size() < 65536; cpu++) cpus.insert(cpu);
    if (in.peek() == ',') in.ignore();
  }
  return cpus;
}

// The path of this process's group in the hierarchy of `controller` ("": the version 2 one).
// Lines are "id:controllers:path".
std::string GroupPath(const std::string& root, const std::string& controller) {
  std::ifstream in(root + "/proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string names = "," + line.substr(first + 1, second - first - 1) + ",";
    if (names == ",," ? controller.empty()
                      : names.find("," + controller + ",") != std::string::npos) {
      return line.substr(second + 1);
    }
  }
  return "/";
}

// The folders of the group and of all groups above it, up to the mount.
std::vector<std::string> GroupFolders(const std::string& root, const std::string& controller) {
  const std::string mount = root + "/sys/fs/cgroup" + (controller.empty() ? "" : "/" + controller);
  std::vector<std::string> folders;
  for (std::string path = GroupPath(root, controller); path.size() > 1;) {
    folders.push_back(mount + path);
    path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
  }
  folders.push_back(mount);
  return folders;
}

template <typename T>
void TakeSmaller(std::optional<T> candidate, std::optional<T>* least) {
  if (candidate && (!*least || *candidate < **least)) *least = candidate;
}

std::optional<double> QuotaV2(const std::string& folder) {
  std::istringstream fields(ReadFirstLine(folder + "/cpu.max").value_or(""));
  double quota = 0, period = 0;
  if (!(fields >> quota >> period) || period <= 0) return std::nullopt;  // "max 100000"
  return quota / period;
}

std::optional<double> QuotaV1(const std::string& folder) {
  const auto quota = ReadNumber(folder + "/cpu.cfs_quota_us");  // -1: none
  const auto period = ReadNumber(folder + "/cpu.cfs_period_us");
  if (!quota || !period || *period == 0) return std::nullopt;
  return static_cast<double>(*quota) / static_cast<double>(*period);
}

struct MemoryNames {
  const char *limit, *usage, *reclaimable;
};
constexpr MemoryNames kMemoryV2{"/memory.max", "/memory.current", "inactive_file"};
constexpr MemoryNames kMemoryV1{"/memory.limit_in_bytes", "/memory.usage_in_bytes",
                                "total_inactive_file"};

std::optional<size_t> MemoryLeft(const std::string& folder, const MemoryNames& names) {
  const auto limit = ReadNumber(folder + names.limit);
  const auto usage = ReadNumber(folder + names.usage);
  if (!limit || !usage) return std::nullopt;
  size_t reclaimable = 0;
  std::ifstream stat(folder + "/memory.stat");
  std::string name;
  for (size_t value = 0; stat >> name >> value;) {
    if (name == names.reclaimable) reclaimable = value;
  }
  const size_t used = *usage > reclaimable ? *usage - reclaimable : 0;
  return *limit > used ? *limit - used : 0;
}

}  // namespace

std::vector<int> FastCpus(const std::string& root, const std::vector<int>& cpus) {
  const std::set<int> small =
      ParseCpuList(ReadFirstLine(root + "/sys/devices/cpu_atom/cpus").value_or(""));
  std::vector<size_t> capacities;
  for (const int cpu : cpus) {
    const std::string folder = root + "/sys/devices/system/cpu/cpu" + std::to_string(cpu);
    const size_t unstated = small.contains(cpu) ? 1 : 1024;  // 1024: the kernel's full capacity
    capacities.push_back(ReadNumber(folder + "/cpu_capacity").value_or(unstated));
  }
  size_t best = 0;
  for (const size_t capacity : capacities) best = std::max(best, capacity);
  std::vector<int> fast;
  for (size_t i = 0; i < cpus.size(); i++) {
    if (capacities[i] >= best - best / 4) fast.push_back(cpus[i]);
  }
  return fast;
}

size_t CountPhysicalCores(const std::string& root, const std::vector<int>& cpus) {
  std::set<std::string> cores;
  for (const int cpu : cpus) {
    const std::string name = "cpu" + std::to_string(cpu);
    const auto siblings =
        ReadFirstLine(root + "/sys/devices/system/cpu/" + name + "/topology/thread_siblings_list");
    cores.insert(siblings.value_or(name));
  }
  return cores.size();
}

std::optional<double> CgroupCpuQuota(const std::string& root) {
  std::optional<double> least;
  for (const std::string& folder : GroupFolders(root, "")) TakeSmaller(QuotaV2(folder), &least);
  for (const std::string& folder : GroupFolders(root, "cpu")) TakeSmaller(QuotaV1(folder), &least);
  return least;
}

std::optional<size_t> CgroupMemoryLeft(const std::string& root) {
  std::optional<size_t> least;
  for (const std::string& folder : GroupFolders(root, "")) {
    TakeSmaller(MemoryLeft(folder, kMemoryV2), &least);
  }
  for (const std::string& folder : GroupFolders(root, "memory")) {
    TakeSmaller(MemoryLeft(folder, kMemoryV1), &least);
  }
  return least;
}

std::optional<size_t> ReadKilobyteLine(const std::string& path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(name + ":", 0) != 0) continue;
    std::istringstream fields(line.substr(name.size() + 1));
    size_t kilobytes = 0;
    if (fields >> kilobytes) return kilobytes * 1024;
  }
  return std::nullopt;
}

}  // namespace trellis
