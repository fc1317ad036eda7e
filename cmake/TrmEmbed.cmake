# trm_embed(target file symbol header): the bytes of a file as `const unsigned char symbol[]` and `const size_t
# symbol_bytes`, which the header declares. Made when configuring, and again when the file has changed.
function(trm_embed target file symbol header)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(READ ${CMAKE_SOURCE_DIR}/${file} bytes HEX)
  string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
  string(REGEX REPLACE "((0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,)(0x..,))" "\\1\n" bytes "${bytes}")
  file(CONFIGURE OUTPUT embedded/${symbol}.c CONTENT
       "#include \"${header}\"\n\nconst unsigned char ${symbol}[] = {\n${bytes}\n};\nconst size_t ${symbol}_bytes = sizeof(${symbol});\n")
  target_sources(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/embedded/${symbol}.c)
endfunction()
