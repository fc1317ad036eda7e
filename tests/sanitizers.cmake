# What sanitizer builds need. Label threads: tests whose own code runs in several threads (not OpenMP's), for preset tsan.
set(thread_tests base/test_wait base/test_link coordinator/test_router coordinator/test_window coordinator/test_http
  coordinator/test_http_server coordinator/test_http_stream coordinator/test_hub coordinator/test_hub_changes coordinator/test_hub_public
  coordinator/test_metrics parallel/test_comm)
foreach(test ${thread_tests})
  set_property(TEST ${test} APPEND PROPERTY LABELS threads)
endforeach()
if(TRM_SANITIZE MATCHES "thread")
  # libgomp is not instrumented: one thread, or every barrier looks like a race
  set_tests_properties(${thread_tests} PROPERTIES ENVIRONMENT
    "OMP_NUM_THREADS=1;TSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/tsan.supp")
elseif(TRM_SANITIZE MATCHES "address")
  # Leaks are looked for everywhere but here: Open MPI keeps what its components allocated and unloads those components
  # before the process ends, so its leaks have no module name that could be suppressed.
  get_property(tests DIRECTORY PROPERTY TESTS)
  foreach(test ${tests})
    # the same for children of tests, which end without giving back what Check has allocated
    if(test MATCHES "^mpi/|^cuda/(layouts|language/|groups|test_backend|test_emulation|test_group)")
      set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT "ASAN_OPTIONS=detect_leaks=0")
    endif()
  endforeach()
endif()
if(NOT TRM_SANITIZE STREQUAL "") # slower by 10 and more
  set_tests_properties(parallel/test_random_graphs parallel/test_lower_networks PROPERTIES TIMEOUT 1200)
endif()
