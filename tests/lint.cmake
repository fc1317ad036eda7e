# The house rules as tests (label lint). tests/lint/*.sh say what each looks at.
foreach(check includes length format scripts words)
  add_test(NAME lint/${check} COMMAND ${CMAKE_SOURCE_DIR}/tests/lint/${check}.sh)
  set_tests_properties(lint/${check} PROPERTIES LABELS lint TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()
add_test(NAME lint/headers COMMAND ${CMAKE_SOURCE_DIR}/tests/lint/headers.sh ${CMAKE_BINARY_DIR})
set_tests_properties(lint/headers PROPERTIES LABELS lint TIMEOUT 600 SKIP_RETURN_CODE 77)
# clang-tidy takes seconds a file: changed files in an ordinary run, all of them in the slow one
add_test(NAME lint/tidy-changed COMMAND ${CMAKE_SOURCE_DIR}/tests/lint/tidy.sh ${CMAKE_BINARY_DIR} --changed)
set_tests_properties(lint/tidy-changed PROPERTIES LABELS "lint;long" TIMEOUT 900 SKIP_RETURN_CODE 77)
add_test(NAME lint/tidy COMMAND ${CMAKE_SOURCE_DIR}/tests/lint/tidy.sh ${CMAKE_BINARY_DIR})
set_tests_properties(lint/tidy PROPERTIES LABELS "lint;slow" TIMEOUT 3600 SKIP_RETURN_CODE 77)
