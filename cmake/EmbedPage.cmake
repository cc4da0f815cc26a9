# cmake -D DIST=web/dist -D DESCRIPTION=openapi.json -D OUT=page_files.cc -P EmbedPage.cmake: writes the files of DIST, and
# DESCRIPTION, as C++, for server/page.h.
cmake_minimum_required(VERSION 3.25)

# literal VARIABLE FILE: its bytes, as the elements of an array.
function(literal variable file)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "(................................)" "\\1\n" hex "${hex}")  # lines that a compiler likes
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  set(${variable} "${bytes}" PARENT_SCOPE)
endfunction()

set(type_html "text/html; charset=utf-8")
set(type_js "text/javascript; charset=utf-8")
set(type_css "text/css; charset=utf-8")
set(type_svg "image/svg+xml")
set(type_json "application/json")

file(GLOB_RECURSE files ${DIST}/*)
list(SORT files)
list(APPEND files ${DESCRIPTION})
set(arrays "")
set(entries "")
set(index 0)
foreach(file ${files})
  string(REGEX REPLACE ".*\\." "" extension ${file})
  if(NOT DEFINED type_${extension})
    message(FATAL_ERROR "${file}: no content type is known for .${extension}; add it to cmake/EmbedPage.cmake")
  endif()
  cmake_path(RELATIVE_PATH file BASE_DIRECTORY ${DIST} OUTPUT_VARIABLE path)
  if(file STREQUAL DESCRIPTION)
    cmake_path(GET file FILENAME path)
  elseif(path STREQUAL index.html)
    set(path "")
  endif()
  file(SHA256 ${file} hash)
  string(SUBSTRING ${hash} 0 16 hash)
  # -n: without a time, so that equal files are equal bytes.
  execute_process(COMMAND gzip -9 -n -c ${file} OUTPUT_FILE ${OUT}.gz COMMAND_ERROR_IS_FATAL ANY)
  literal(plain ${file})
  literal(gzipped ${OUT}.gz)
  string(APPEND arrays "constexpr unsigned char kPlain${index}[] = {\n${plain}};\n")
  string(APPEND arrays "constexpr unsigned char kGzipped${index}[] = {\n${gzipped}};\n")
  string(APPEND entries "    {\"/${path}\", \"${type_${extension}}\", \"${hash}\", View(kPlain${index}), View(kGzipped${index})},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(REMOVE ${OUT}.gz)
file(WRITE ${OUT} "#include \"server/page.h\"

namespace trellis {
namespace {

${arrays}
template <size_t kSize>
std::string_view View(const unsigned char (&bytes)[kSize]) {
  return {reinterpret_cast<const char*>(bytes), kSize};
}

}  // namespace

std::span<const PageFile> PageFiles() {
  static const PageFile files[] = {
${entries}  };
  return files;
}

}  // namespace trellis
")
