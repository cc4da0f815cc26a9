// The loops are assembly as a whole: a compiler that spills one accumulator halves the figure. So
// they need no flags for their instruction sets, only a check before they run.
#include "kernels/ceilings.h"

#include <algorithm>

#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

#include "kernels/tiles_amx.h"
#endif

namespace trellis {
namespace {

// Operands: as bytes, halves and floats alike ordinary numbers.
alignas(64) constexpr uint32_t kOperand[16] = {
    0x3f812345, 0x3f923451, 0x3fa34512, 0x3fb45123, 0x3fc51234, 0x3fd12345, 0x3fe23451, 0x3ff34512,
    0x3f812543, 0x3f925431, 0x3fa34215, 0x3fb41523, 0x3fc53214, 0x3fd15432, 0x3fe21354, 0x3ff42315};

// What "scalar" can do: whatever the compiler makes of a plain loop, as in the scalar kernels.
template <typename T, typename Sum>
void PlainLoop(size_t rounds) {
  constexpr size_t kLanes = 256;
  T a[kLanes], b[kLanes];
  std::fill_n(a, kLanes, static_cast<T>(3));
  std::fill_n(b, kLanes, static_cast<T>(2));
  for (size_t round = 0; round < rounds; round++) {
    Sum sum = 0;
    for (size_t i = 0; i < kLanes; i++) sum += static_cast<Sum>(a[i]) * static_cast<Sum>(b[i]);
    asm volatile("" : : "g"(&sum), "g"(a), "g"(b) : "memory");
  }
}

#if defined(__x86_64__)

#define TRELLIS_TIMES_10(op) \
  op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("8") op("9")
#define TRELLIS_TIMES_12(op) TRELLIS_TIMES_10(op) op("10") op("11")
#define TRELLIS_X86_LOOP(init, width, load, body)                                                \
  asm volatile(init load " (%1), %%" width "12\n" load " (%1), %%" width                         \
                         "13\n"                                                                  \
                         "1:\n" body                                                             \
                         "dec %0\n"                                                              \
                         "jnz 1b\n"                                                              \
                         "vzeroupper\n"                                                          \
               : "+r"(rounds)                                                                    \
               : "r"(kOperand)                                                                   \
               : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", \
                 "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14")

#define TRELLIS_ZERO(r) "vpxor %%xmm" r ", %%xmm" r ", %%xmm" r "\n"

void Maddubs256(size_t rounds) {
#define TRELLIS_OP(r)                      \
  "vpmaddubsw %%ymm12, %%ymm13, %%ymm14\n" \
  "vpaddw %%ymm14, %%ymm" r ", %%ymm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "ymm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Maddwd256(size_t rounds) {
#define TRELLIS_OP(r)                    \
  "vpmaddwd %%ymm12, %%ymm13, %%ymm14\n" \
  "vpaddd %%ymm14, %%ymm" r ", %%ymm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "ymm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Fma256(size_t rounds) {
#define TRELLIS_OP(r) "vfmadd231ps %%ymm12, %%ymm13, %%ymm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "ymm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Dpbusd256(size_t rounds) {
#define TRELLIS_OP(r) "%{vex%} vpdpbusd %%ymm12, %%ymm13, %%ymm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "ymm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Dpbusd512(size_t rounds) {
#define TRELLIS_OP(r) "vpdpbusd %%zmm12, %%zmm13, %%zmm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "zmm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Dpwssd512(size_t rounds) {
#define TRELLIS_OP(r) "vpdpwssd %%zmm12, %%zmm13, %%zmm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "zmm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Fma512(size_t rounds) {
#define TRELLIS_OP(r) "vfmadd231ps %%zmm12, %%zmm13, %%zmm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "zmm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void Dpbf16512(size_t rounds) {
#define TRELLIS_OP(r) "vdpbf16ps %%zmm12, %%zmm13, %%zmm" r "\n"
  TRELLIS_X86_LOOP(TRELLIS_TIMES_12(TRELLIS_ZERO), "zmm", "vmovups", TRELLIS_TIMES_12(TRELLIS_OP));
#undef TRELLIS_OP
}

void TilesInt8(size_t rounds) {
  constexpr TileConfig kConfig = {.row_bytes = {64, 64, 64, 64, 64, 64},
                                  .rows = {16, 16, 16, 16, 16, 16}};
  alignas(64) std::byte operand[16 * 64];
  for (size_t i = 0; i < sizeof(operand); i++)
    operand[i] = static_cast<std::byte>(kOperand[i % 16] >> (8 * (i % 3)));
#define TRELLIS_OP(t) "tdpbssd %%tmm5, %%tmm4, %%tmm" t "\n"
  asm volatile(
      "ldtilecfg %1\n"
      "tileloadd (%2,%3,1), %%tmm4\n"
      "tileloadd (%2,%3,1), %%tmm5\n"
      "1:\n" TRELLIS_OP("0") TRELLIS_OP("1") TRELLIS_OP("2") TRELLIS_OP("3")
      "dec %0\n"
      "jnz 1b\n"
      "tilerelease\n"
      : "+r"(rounds)
      : "m"(kConfig), "r"(operand), "r"(size_t{64})
      : "cc", "memory");
#undef TRELLIS_OP
}

// The operating system's part (saved registers) is checked with the tables.
bool HasAvx512Bf16() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 5 & 1) != 0;
}

void AddProbes(Isa isa, std::vector<ArithmeticProbe>* probes) {
  if (isa == Isa::kAvx2) {
    probes->push_back({"avx2", Arithmetic::kInt8, "vpmaddubsw + vpaddw", 12 * 32, Maddubs256});
    probes->push_back({"avx2", Arithmetic::kInt16, "vpmaddwd + vpaddd", 12 * 16, Maddwd256});
    probes->push_back({"avx2", Arithmetic::kF32, "vfmadd231ps ymm", 12 * 8, Fma256});
  }
  if (isa == Isa::kAvxVnni) {
    probes->push_back({"avxvnni", Arithmetic::kInt8, "vpdpbusd ymm", 12 * 32, Dpbusd256});
    probes->push_back({"avxvnni", Arithmetic::kInt16, "vpmaddwd + vpaddd", 12 * 16, Maddwd256});
    probes->push_back({"avxvnni", Arithmetic::kF32, "vfmadd231ps ymm", 12 * 8, Fma256});
  }
  if (isa == Isa::kAvx512) {
    probes->push_back({"avx512", Arithmetic::kInt8, "vpdpbusd zmm", 12 * 64, Dpbusd512});
    probes->push_back({"avx512", Arithmetic::kInt16, "vpdpwssd zmm", 12 * 32, Dpwssd512});
    probes->push_back({"avx512", Arithmetic::kF32, "vfmadd231ps zmm", 12 * 16, Fma512});
    if (!HasAvx512Bf16()) return;
    probes->push_back({"avx512", Arithmetic::kBf16, "vdpbf16ps zmm", 12 * 32, Dpbf16512});
  }
  if (isa == Isa::kAmx) {
    probes->push_back({"amx", Arithmetic::kInt8, "tdpbssd", 4 * 16 * 16 * 64, TilesInt8});
    probes->push_back({"amx", Arithmetic::kInt16, "vpdpwssd zmm", 12 * 32, Dpwssd512});
    probes->push_back({"amx", Arithmetic::kF32, "vfmadd231ps zmm", 12 * 16, Fma512});
  }
}

#elif defined(__aarch64__)

// 16 chains: four pipes of latency four. Newer instructions are given as numbers: compilers differ
// in how an assembly statement may ask for them.
#define TRELLIS_TIMES_16(op)                                                                 \
  op("0") op("1") op("2") op("3") op("4") op("5") op("6") op("7") op("16") op("17") op("18") \
      op("19") op("20") op("21") op("22") op("23")
#define TRELLIS_ARM_LOOP(body) \
  asm volatile("ldr q24, [%1]\n"                                                                 \
               "ldr q25, [%1, #16]\n" TRELLIS_TIMES_16(TRELLIS_ZERO) "1:\n" TRELLIS_TIMES_16(body) \
               "subs %0, %0, #1\n"                                                               \
               "b.ne 1b\n"                                                                       \
               : "+r"(rounds)                                                                    \
               : "r"(kOperand)                                                                   \
               : "cc", "memory", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17",   \
                 "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25")

#define TRELLIS_ZERO(r) "movi v" r ".4s, #0\n"

void Sdot(size_t rounds) {
#define TRELLIS_OP(r) ".inst 0x4e999700 + " r "\n"  // sdot v[r].4s, v24.16b, v25.16b
  TRELLIS_ARM_LOOP(TRELLIS_OP);
#undef TRELLIS_OP
}

void Smmla(size_t rounds) {
#define TRELLIS_OP(r) ".inst 0x4e99a700 + " r "\n"  // smmla v[r].4s, v24.16b, v25.16b
  TRELLIS_ARM_LOOP(TRELLIS_OP);
#undef TRELLIS_OP
}

void Fmla(size_t rounds) {
#define TRELLIS_OP(r) "fmla v" r ".4s, v24.4s, v25.4s\n"
  TRELLIS_ARM_LOOP(TRELLIS_OP);
#undef TRELLIS_OP
}

void AddProbes(Isa isa, std::vector<ArithmeticProbe>* probes) {
  if (isa == Isa::kNeon) {
    probes->push_back({"neon", Arithmetic::kInt8, "sdot", 16 * 16, Sdot});
    probes->push_back({"neon", Arithmetic::kF32, "fmla", 16 * 4, Fmla});
  }
  if (isa == Isa::kNeonI8mm) {
    probes->push_back({"neon_i8mm", Arithmetic::kInt8, "smmla", 16 * 32, Smmla});
    probes->push_back({"neon_i8mm", Arithmetic::kF32, "fmla", 16 * 4, Fmla});
  }
}

#else

void AddProbes(Isa, std::vector<ArithmeticProbe>*) {}

#endif

}  // namespace

const char* ArithmeticName(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kInt8:
      return "int8";
    case Arithmetic::kInt16:
      return "int16";
    case Arithmetic::kF32:
      return "f32";
    case Arithmetic::kBf16:
      return "bf16";
  }
  return "";
}

std::vector<ArithmeticProbe> AvailableProbes() {
  std::vector<ArithmeticProbe> probes = {
      {"scalar", Arithmetic::kInt8, "a plain loop", 256, PlainLoop<int8_t, int32_t>},
      {"scalar", Arithmetic::kF32, "a plain loop", 256, PlainLoop<float, float>}};
  for (const KernelTable* table : AvailableKernels()) AddProbes(table->isa, &probes);
  return probes;
}

uint64_t ReadOnce(const std::byte* data, size_t bytes) {
  // 16-byte vectors are there on every machine, and memory is slower than they are.
  using Vector = uint64_t __attribute__((vector_size(16), may_alias, aligned(16)));
  constexpr size_t kVectors = kReadStep / sizeof(Vector);
  constexpr size_t kAhead = 2048, kLine = 64;  // hardware alone does not look across system pages
  Vector sums[4] = {};
  for (size_t at = 0; at < bytes; at += kReadStep) {
    const auto* from = reinterpret_cast<const Vector*>(data + at);
    for (size_t line = 0; line < kReadStep; line += kLine)
      __builtin_prefetch(data + at + kAhead + line);
    for (size_t i = 0; i < kVectors; i += 4) {
      for (size_t j = 0; j < 4; j++) sums[j] += from[i + j];
    }
  }
  const Vector sum = sums[0] + sums[1] + sums[2] + sums[3];
  return sum[0] + sum[1];
}

}  // namespace trellis
