# ONNX's own backend test cases, where Debian's libonnx-testdata is installed (tests/conformance/runner.c).
add_executable(conformance ${CMAKE_CURRENT_LIST_DIR}/conformance/runner.c ${CMAKE_CURRENT_LIST_DIR}/conformance/case.c)
target_link_libraries(conformance PRIVATE trm_warnings trm_coordinator trm_worker)
trm_opens_modules(conformance)
set(onnx_data /usr/include/onnx/backend/test/data)
if(EXISTS ${onnx_data}/node)
  # 996 of the 1,072 cases, as measured; every unsupported one must be listed with its reason
  add_test(NAME conformance/onnx-1.12 COMMAND conformance --data ${onnx_data}/node --data ${onnx_data}/simple
    --data ${onnx_data}/pytorch-converted --data ${onnx_data}/pytorch-operator --jobs 2
    --expect ${CMAKE_CURRENT_LIST_DIR}/conformance/unsupported.txt --min 996)
  set_tests_properties(conformance/onnx-1.12 PROPERTIES LABELS conformance TIMEOUT 900)
else()
  message(STATUS "libonnx-testdata is not installed: no conformance tests")
endif()
add_test(NAME conformance/newest COMMAND ${CMAKE_CURRENT_LIST_DIR}/conformance/newest.sh $<TARGET_FILE:conformance>)
set_tests_properties(conformance/newest PROPERTIES LABELS slow TIMEOUT 1800 SKIP_RETURN_CODE 77)
