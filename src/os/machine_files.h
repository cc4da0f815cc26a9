// What /proc and /sys say, below a root that tests can fake. machine.h is the way to ask.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

namespace trellis {

// `root` goes before every path: "" for the machine itself.

// Physical cores among the logical CPUs `cpus`: hyper-threads of one core counted once.
size_t CountPhysicalCores(const std::string& root, const std::vector<int>& cpus);

// Those of `cpus` that are of the fast kind where the machine has several (P and E cores, big and
// little): all within a quarter of the fastest one's capacity as the kernel states it, or, where it
// states none, those that Intel's driver does not count among the small ones. Never empty unless
// `cpus` is.
std::vector<int> FastCpus(const std::string& root, const std::vector<int>& cpus);

// CPUs' worth of time that this process's control group and every group above it allow; nothing
// without a limit. Versions 1 and 2. In a container the group's own path may not be visible; then
// the mount's top is the group.
std::optional<double> CgroupCpuQuota(const std::string& root);

// Bytes that the nearest memory limit of those groups leaves, page cache that the kernel can drop
// counted as free; nothing without a limit.
std::optional<size_t> CgroupMemoryLeft(const std::string& root);

// The value in bytes of a line "name:   123 kB", as in /proc/meminfo.
std::optional<size_t> ReadKilobyteLine(const std::string& path, const std::string& name);

}  // namespace trellis
