# The tool with which tests/oracles/tokenizers.py compares model/tokenizer with the `tokenizers` library and sentencepiece;
# skipped (77) where they are not installed for TRM_ORACLE_PYTHON.
set(TRM_ORACLE_PYTHON /usr/bin/python3 CACHE FILEPATH "the Python that has the oracles' packages")
add_executable(tokenize ${CMAKE_CURRENT_LIST_DIR}/model/tokenize.c)
target_link_libraries(tokenize PRIVATE trm_warnings trm_model)
if(EXISTS ${TRM_ORACLE_PYTHON})
  add_test(NAME oracles/tokenizers COMMAND ${TRM_ORACLE_PYTHON} ${CMAKE_SOURCE_DIR}/tests/oracles/tokenizers.py
    --check $<TARGET_FILE:tokenize> --count 1000)
  set_tests_properties(oracles/tokenizers PROPERTIES LABELS slow TIMEOUT 1200 SKIP_RETURN_CODE 77)
endif()
