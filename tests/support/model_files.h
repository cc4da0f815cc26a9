// Where tests find real models, and where they may keep what is dear to make. scripts/env.sh
// exports both folders; by hand they are where the scripts put them.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/check.h"

namespace trellis {

// $TRELLIS_CACHE or the user's: shared by all checkouts.
inline std::filesystem::path TestCacheFolder() {
  if (const char* cache = std::getenv("TRELLIS_CACHE")) return cache;
  if (const char* cache = std::getenv("XDG_CACHE_HOME")) {
    return std::filesystem::path(cache) / "trellis";
  }
  const char* home = std::getenv("HOME");
  TRELLIS_CHECK(home != nullptr);
  return std::filesystem::path(home) / ".cache" / "trellis";
}

// The file of scripts/fetch.py's model; whether it is there, its reader will say.
inline std::string RealModelPath(const std::string& file) {
  const char* folder = std::getenv("TRELLIS_MODELS_DIR");
  return ((folder != nullptr ? std::filesystem::path(folder) : TestCacheFolder() / "models") / file)
      .string();
}

}  // namespace trellis
