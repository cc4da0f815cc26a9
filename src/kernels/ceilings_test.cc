#include "kernels/ceilings.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace trellis {
namespace {

TEST(CeilingsTest, EveryInstructionSetHasItsProbes) {
  for (const KernelTable* table : AvailableKernels()) {
    for (const Arithmetic arithmetic : {Arithmetic::kInt8, Arithmetic::kF32}) {
      size_t found = 0;
      for (const ArithmeticProbe& probe : AvailableProbes()) {
        if (probe.arithmetic != arithmetic || std::string(probe.isa) != table->name) continue;
        found++;
        EXPECT_GT(probe.macs_per_round, 0u);
        probe.run(1);
        probe.run(1000);  // an instruction that this machine lacks would stop here
      }
      EXPECT_GT(found, 0u) << table->name;
    }
  }
}

TEST(CeilingsTest, ReadOnceReadsEveryWord) {
  std::vector<uint64_t> words(4 * kReadStep / sizeof(uint64_t) + 2);
  // 16-byte aligned, as all memory that weights lie in.
  auto* data = words.data() + reinterpret_cast<uintptr_t>(words.data()) / 8 % 2;
  uint64_t sum = 0;
  for (size_t i = 0; i < 4 * kReadStep / sizeof(uint64_t); i++) sum += data[i] = i * i + 1;
  EXPECT_EQ(ReadOnce(reinterpret_cast<const std::byte*>(data), 4 * kReadStep), sum);
  EXPECT_EQ(ReadOnce(reinterpret_cast<const std::byte*>(data), 0), 0u);
}

}  // namespace
}  // namespace trellis
