# fmt, xxHash and GoogleTest for a cross build, from the sources that Debian's packages for this machine hold: its libraries
# are for another processor. Everything that needs more (llama.cpp, Boost, rapidcheck) is left out there.

# A folder of its own: /usr/include as a whole would bring the C library of this machine.
set(headers ${CMAKE_BINARY_DIR}/headers)
file(MAKE_DIRECTORY ${headers})
file(CREATE_LINK /usr/include/fmt ${headers}/fmt SYMBOLIC)
file(CREATE_LINK /usr/include/xxhash.h ${headers}/xxhash.h SYMBOLIC)
add_library(fmt_headers INTERFACE)
target_include_directories(fmt_headers SYSTEM INTERFACE ${headers})
target_compile_definitions(fmt_headers INTERFACE FMT_HEADER_ONLY=1)
add_library(fmt::fmt ALIAS fmt_headers)

if(TRELLIS_BUILD_TESTS)
  set(INSTALL_GTEST OFF)
  add_subdirectory(/usr/src/googletest ${CMAKE_BINARY_DIR}/googletest EXCLUDE_FROM_ALL)
endif()
