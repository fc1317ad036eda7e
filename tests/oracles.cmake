# Development oracles that skip (77) where their Python packages are missing.
if(NOT EXISTS /usr/bin/python3)
  message(STATUS "/usr/bin/python3 is not there: no tests against the development oracles")
  return()
endif()
add_test(NAME oracles/from_pytorch
  COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/oracles/from_pytorch.py $<TARGET_FILE:trireme>)
add_test(NAME oracles/images COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/oracles/images.py --check)
add_test(NAME oracles/photos
  COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/oracles/photos.py $<TARGET_FILE:trireme> ${CMAKE_BINARY_DIR}/photos)
set_tests_properties(oracles/from_pytorch oracles/images oracles/photos PROPERTIES LABELS slow TIMEOUT 600 SKIP_RETURN_CODE 77)
# Texts drawn under constraints, judged by Python's jsonschema.
add_executable(constraint_walk ${CMAKE_SOURCE_DIR}/tests/oracles/constraint_walk.c)
target_link_libraries(constraint_walk PRIVATE trm_warnings trm_worker)
add_test(NAME oracles/constraints
  COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/tests/oracles/constraints.py $<TARGET_FILE:constraint_walk>)
set_tests_properties(oracles/constraints PROPERTIES LABELS slow TIMEOUT 600 SKIP_RETURN_CODE 77)
