// Included before everything in llama.cpp's C++ where g++ compiles it. g++ 12's _tile_loadconfig
// says that it reads 8 bytes of the 64 it does, so that most of a configuration is never written
// (GCC bug 114098), and the program stops at its first product on a machine with AMX.
#pragma once

#ifdef __AMX_TILE__
#include <immintrin.h>
#define _tile_loadconfig(config) \
  asm volatile("ldtilecfg %0" : : "m"(*reinterpret_cast<const char(*)[64]>(config)))
#endif
