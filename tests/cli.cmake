# Commands as a user types them (label unit: the program and a Python without packages are all they need).
add_test(NAME cli/commands COMMAND ${CMAKE_CURRENT_LIST_DIR}/cli/commands.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR})
add_test(NAME cli/install COMMAND ${CMAKE_CURRENT_LIST_DIR}/cli/install.sh ${CMAKE_COMMAND} ${CMAKE_BINARY_DIR})
set_tests_properties(cli/commands cli/install PROPERTIES LABELS unit TIMEOUT 120)
find_program(trm_python3 python3)
if(trm_python3)
  add_test(NAME cli/bad_input COMMAND ${trm_python3} ${CMAKE_CURRENT_LIST_DIR}/cli/bad_input.py $<TARGET_FILE:trireme>)
  set_tests_properties(cli/bad_input PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
else()
  message(STATUS "python3 is not installed: no test of the command line's bad input")
endif()
# Damaged models: with a build that has sanitizers this is the harder test (preset asan), so it is short elsewhere.
if(trm_python3)
  add_test(NAME cli/mutate COMMAND ${trm_python3} ${CMAKE_CURRENT_LIST_DIR}/cli/mutate.py $<TARGET_FILE:trireme>
    ${CMAKE_SOURCE_DIR} 300)
  set_tests_properties(cli/mutate PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endif()
