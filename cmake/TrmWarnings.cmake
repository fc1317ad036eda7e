# Warnings (errors) and sanitizers for our own code; generated and third-party code is compiled without.
add_library(trm_warnings INTERFACE)
target_compile_options(trm_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion -Wvla -Wmissing-prototypes -Werror
  -fno-math-errno -fno-trapping-math
  # what -O3 inlines decides whether gcc can follow a variable set through a pointer: told, but no error
  $<$<CONFIG:Release>:-Wno-error=maybe-uninitialized>)
if(TRM_CHECKED)
  add_compile_definitions(TRM_CHECKED=1)
endif()
if(TRM_SANITIZE)
  add_compile_options(-fsanitize=${TRM_SANITIZE} -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${TRM_SANITIZE})
  # gcc 12 sees overlong reads and unset variables where instrumentation has split the code
  add_compile_options(-Wno-stringop-overread -Wno-stringop-overflow -Wno-maybe-uninitialized)
  if(TRM_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
