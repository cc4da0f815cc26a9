# The Debian package that `make deb` makes: what `make install` installs, in /usr, and a service, which starts when its
# config file names a model and someone enables it.
install(FILES contrib/systemd/trellis.service DESTINATION lib/systemd/system)
install(FILES contrib/systemd/config.toml DESTINATION /etc/trellis)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME trellis)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "server of GGUF language models that computes nothing twice")
string(CONCAT CPACK_DEBIAN_PACKAGE_DESCRIPTION
  "A native server with RadixAttention: one radix tree over token prefixes whose nodes own pages of keys and values. "
  "OpenAI's, Anthropic's, Ollama's and llama-server's clients use it as they are.")
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The Trellis authors <trellis@localhost>")
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_DEPENDS adduser)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
foreach(script postinst prerm postrm conffiles)
  list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_CURRENT_SOURCE_DIR}/contrib/debian/${script})
endforeach()
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
