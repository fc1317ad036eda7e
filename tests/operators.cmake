# docs/operators.md comes from the operator table (tests/operators/gen_operators.c).
add_executable(gen_operators ${CMAKE_CURRENT_LIST_DIR}/operators/gen_operators.c)
target_link_libraries(gen_operators PRIVATE trm_warnings trm_worker)
add_custom_target(operators_doc COMMAND gen_operators > ${CMAKE_SOURCE_DIR}/docs/operators.md VERBATIM)
add_test(NAME lint/operators-doc COMMAND gen_operators --check ${CMAKE_SOURCE_DIR}/docs/operators.md)
set_tests_properties(lint/operators-doc PROPERTIES LABELS lint TIMEOUT 60)
