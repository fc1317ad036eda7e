# Commands as a user types them (label unit: the program and a Python without packages are all they need).
find_program(trm_python3 python3)
if(trm_python3)
  add_test(NAME cli/bad_input COMMAND ${trm_python3} ${CMAKE_CURRENT_LIST_DIR}/cli/bad_input.py $<TARGET_FILE:trireme>)
  set_tests_properties(cli/bad_input PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
else()
  message(STATUS "python3 is not installed: no test of the command line's bad input")
endif()
