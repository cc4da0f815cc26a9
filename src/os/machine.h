// What this process may use of the machine: cores and memory, affinity and control groups
// respected.
#pragma once

#include <cstddef>

namespace trellis {

// Physical cores of the fast kind that this process may run on: hyper-threads counted once, the
// affinity mask and the CPU quota of its control group (v1 or v2) respected. At least 1. Efficiency
// cores are left to others: a fork-join waits for its slowest thread.
size_t AvailablePhysicalCores();

// Bytes that can still be allocated without swapping: MemAvailable, less if a control group's limit
// is nearer.
size_t AvailableMemoryBytes();

// The most resident memory this process has had so far (VmHWM).
size_t PeakResidentBytes();

// Gives the system back what the allocator keeps of memory that was freed.
void ReturnFreeMemory();

}  // namespace trellis
