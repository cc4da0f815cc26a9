#include "kernels/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "kernels/kernels_internal.h"

namespace trellis {
namespace {

#if defined(__x86_64__)
bool HasF16c() {  // clang 14's __builtin_cpu_supports does not know it
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool HasAvx2() {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 && HasF16c();
}

bool HasAvxVnni() {  // clang 14's __builtin_cpu_supports does not know it
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return HasAvx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
}

// Whether the processor has tiles and int8 products, and the system lets this process use them.
bool HasAmx() {
#if defined(__linux__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  if (!HasAvx512() || __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kTile) == 0 || (edx & kInt8) == 0) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // Documentation/arch/x86/xstate.rst
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

#if defined(__aarch64__)
bool HasDotProduct() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
  return true;   // every Apple M has it
#endif
}

bool HasI8mm() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
  return false;  // the first Apple M has not
#endif
}
#endif

// Built on first use, so that no table touches instructions before its check.
std::vector<KernelTable> BuildTables() {
  std::vector<KernelTable> tables;
  tables.push_back(
      {Isa::kScalar, "scalar", ScalarMatmulKernels(), ScalarAttentionKernels(), ScalarOpKernels()});
#if defined(__x86_64__)
  if (HasAvx2()) {
    tables.push_back(
        {Isa::kAvx2, "avx2", Avx2MatmulKernels(), Avx2AttentionKernels(), Avx2OpKernels()});
  }
  if (HasAvxVnni()) {
    tables.push_back({Isa::kAvxVnni, "avxvnni", AvxVnniMatmulKernels(), Avx2AttentionKernels(),
                      Avx2OpKernels()});
  }
  if (HasAvx512()) {
    tables.push_back({Isa::kAvx512, "avx512", Avx512MatmulKernels(), Avx512AttentionKernels(),
                      Avx512OpKernels()});
  }
  if (HasAmx()) {
    tables.push_back(
        {Isa::kAmx, "amx", AmxMatmulKernels(), Avx512AttentionKernels(), Avx512OpKernels()});
  }
#endif
#if defined(__aarch64__)
  if (HasDotProduct()) {
    tables.push_back(
        {Isa::kNeon, "neon", NeonMatmulKernels(), NeonAttentionKernels(), NeonOpKernels()});
  }
  if (HasDotProduct() && HasI8mm()) {
    tables.push_back({Isa::kNeonI8mm, "neon_i8mm", NeonI8mmMatmulKernels(), NeonAttentionKernels(),
                      NeonOpKernels()});
  }
#endif
  return tables;
}

}  // namespace

std::vector<const KernelTable*> AvailableKernels() {
  static const std::vector<KernelTable> tables = BuildTables();  // immutable
  std::vector<const KernelTable*> available;
  for (const KernelTable& table : tables) available.push_back(&table);
  return available;
}

Result<const KernelTable*> SelectKernels(std::string_view name) {
  const std::vector<const KernelTable*> available = AvailableKernels();
  if (name.empty()) return available.back();
  std::string names;
  for (const KernelTable* table : available) {
    if (table->name == name) return table;
    names += names.empty() ? table->name : std::string(", ") + table->name;
  }
  return Status(StatusCode::kInvalidArgument,
                fmt::format("instruction set '{}' is not available on this machine; there is: {}",
                            name, names));
}

Result<const KernelTable*> SelectKernelsFromEnvironment() {
  const char* name = std::getenv("TRELLIS_ISA");
  return SelectKernels(name != nullptr ? name : "");
}

}  // namespace trellis
