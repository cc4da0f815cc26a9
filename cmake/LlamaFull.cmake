# llama_full: libllama with its model graphs, the reference that the oracle tests compare with.
# The same names (ggml_*, gguf_*, llama_*) are in the library that Trellis links, so a program links either this
# target or trellis_* libraries, never both: the reference runs in a process of its own.
set(lib ${TRELLIS_LLAMA_FULL_DIR}/lib)
add_library(llama_full INTERFACE)
target_include_directories(llama_full SYSTEM INTERFACE ${TRELLIS_LLAMA_FULL_DIR}/include)
target_link_libraries(llama_full INTERFACE
  ${lib}/libllama.so ${lib}/libggml.so ${lib}/libggml-cpu.so ${lib}/libggml-base.so)
target_link_options(llama_full INTERFACE -Wl,-rpath,${lib})

# llama_full_chat: with llama.cpp's chat templates on top.
set(source ${TRELLIS_LLAMA_FULL_DIR}/source)
add_library(llama_full_chat INTERFACE)
target_include_directories(llama_full_chat SYSTEM INTERFACE ${source}/common ${source}/vendor)
target_link_libraries(llama_full_chat INTERFACE ${lib}/libllama_chat.a llama_full)
target_link_options(llama_full_chat INTERFACE -Wl,--gc-sections)  # it calls what is not there, for other programs
