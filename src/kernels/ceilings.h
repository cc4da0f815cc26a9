// Probes for a machine's ceilings: loops that do one kind of work and nothing else. A kernel is
// judged by the share of these that it reaches; ceilings_bench prints them, `trellis bench
// --profile` holds every part of a step against them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trellis {

enum class Arithmetic { kInt8, kInt16, kF32, kBf16 };
const char* ArithmeticName(Arithmetic arithmetic);  // int8 ..

struct ArithmeticProbe {
  const char* isa;  // the instruction set, by the name of its kernel table
  Arithmetic arithmetic;
  const char* instructions;
  size_t macs_per_round;  // multiply-adds
  void (*run)(
      size_t rounds);  // rounds >= 1; operands in registers, chains long enough for any core
};

// Every probe that this machine can run. One set may have several of a kind: the best counts.
std::vector<ArithmeticProbe> AvailableProbes();

// Reads `data` [bytes] once, front to back; bytes is a multiple of kReadStep. The result depends on
// every byte, so that nothing can be left out.
inline constexpr size_t kReadStep = 256;
uint64_t ReadOnce(const std::byte* data, size_t bytes);

}  // namespace trellis
