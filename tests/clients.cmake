# The clients of docs/clients, against a fake of the public ZeroMQ endpoint.
add_executable(zmq_client ${CMAKE_SOURCE_DIR}/docs/clients/zmq_client.c)
target_link_libraries(zmq_client PRIVATE trm_warnings trm_deps_base)
target_compile_definitions(base_test_zmq_client PRIVATE TRM_ZMQ_CLIENT="$<TARGET_FILE:zmq_client>")
add_dependencies(base_test_zmq_client zmq_client)
find_program(trm_python3 python3)
if(trm_python3)
  # of packages: pyzmq and msgpack; skipped where they are not there
  add_test(NAME clients/zmq_python COMMAND sh -c
    "'${trm_python3}' -c 'import msgpack, zmq' || exit 77; exec '$<TARGET_FILE:base_test_zmq_client>' '${trm_python3} ${CMAKE_SOURCE_DIR}/docs/clients/zmq_client.py'")
  set_tests_properties(clients/zmq_python PROPERTIES LABELS unit TIMEOUT 120 SKIP_RETURN_CODE 77 ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1")
endif()

# Packages that people use, unmodified, against trireme serve: each makes a virtual environment, and skips where no registry
# is reachable. They wait more than they compute.
foreach(client openai triton curl)
  add_test(NAME clients/${client}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/clients/${client}.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR})
  set_tests_properties(clients/${client} PROPERTIES LABELS clients TIMEOUT 600 SKIP_RETURN_CODE 77
    ENVIRONMENT "PYTHONDONTWRITEBYTECODE=1;TRM_CACHE=${CMAKE_BINARY_DIR}/cache")
endforeach()

# What the gateway adds to a small request: build/<preset>/tests/bench_gateway_latency (docs/measurements)
add_executable(bench_gateway_latency EXCLUDE_FROM_ALL ${CMAKE_CURRENT_LIST_DIR}/bench/gateway_latency.c)
target_link_libraries(bench_gateway_latency PRIVATE trm_warnings trm_base)
