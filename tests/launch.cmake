# The supervisor is part of the program, not of a room's library: its test gets its sources.
target_sources(launch_test_supervise PRIVATE ${CMAKE_SOURCE_DIR}/launch/supervise.c
  ${CMAKE_SOURCE_DIR}/launch/supervise_process.c)
foreach(case replica coordinator drain killed bad)
  add_test(NAME mpi/launch-${case} COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/launch.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/launch-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1;TRM_CACHE=${CMAKE_BINARY_DIR}/cache")
endforeach()
