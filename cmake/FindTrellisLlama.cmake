# trellis::llama: the part of llama.cpp that third_party/llama installs into the folder TRELLIS_LLAMA_DIR.
set(TRELLIS_LLAMA_DIR "" CACHE PATH "Where third_party/llama is installed")

find_library(TrellisLlama_LIBRARY trellis_llama PATHS ${TRELLIS_LLAMA_DIR}/lib NO_DEFAULT_PATH)
find_path(TrellisLlama_INCLUDE_DIR trellis_llama.h PATHS ${TRELLIS_LLAMA_DIR}/include NO_DEFAULT_PATH)
mark_as_advanced(TrellisLlama_LIBRARY TrellisLlama_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TrellisLlama
  REQUIRED_VARS TrellisLlama_LIBRARY TrellisLlama_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "set TRELLIS_LLAMA_DIR to where third_party/llama is installed (`make` does it all)")

if(TrellisLlama_FOUND AND NOT TARGET trellis::llama)
  find_package(Threads REQUIRED)
  add_library(trellis::llama STATIC IMPORTED)
  set_target_properties(trellis::llama PROPERTIES
    IMPORTED_LOCATION ${TrellisLlama_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${TrellisLlama_INCLUDE_DIR}
    INTERFACE_LINK_LIBRARIES "Threads::Threads;m")
endif()
