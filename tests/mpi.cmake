# Jobs of several ranks (label mpi). One at a time: they share the machine's cores with nothing.
foreach(case accuracy refusal resume killed interrupted full)
  add_test(NAME mpi/score-${case}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/score.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/score-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
endforeach()

# Killed at random moments and resumed; many times under the label slow.
add_test(NAME mpi/score-kill COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/kill.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 12)
add_test(NAME mpi/score-kill-often COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/kill.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 50)
set_tests_properties(mpi/score-kill PROPERTIES LABELS mpi TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
set_tests_properties(mpi/score-kill-often PROPERTIES LABELS "mpi;slow" TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL ON)

# Late, dead or other ranks are named. All of it is waiting, for deadlines: beside other tests.
foreach(case asleep stuck dead gone build orphans)
  add_test(NAME mpi/rollcall-${case}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/rollcall.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/rollcall-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77)
endforeach()

# Communicators of every row under mpirun; comm_ranks --bench gives their figures.
add_executable(comm_ranks ${CMAKE_SOURCE_DIR}/tests/mpi/comm_ranks.c)
target_link_libraries(comm_ranks PRIVATE trm_warnings trm_parallel)
foreach(case shm mpi late other killed)
  add_test(NAME mpi/comm-${case} COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/comm.sh $<TARGET_FILE:comm_ranks> ${case})
  set_tests_properties(mpi/comm-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
endforeach()

# Layouts: all networks against one rank, and what the commands make of them.
foreach(case tensor=2 tensor=3 tensor=4 pipeline=2 pipeline=3 tensor=2,pipeline=2 data=2,tensor=2,pipeline=2
    score batches failing run bench memory models killed)
  string(REPLACE "=" "" name ${case})
  string(REPLACE "," "-" name ${name})
  add_test(NAME mpi/layouts-${name}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/layouts.sh $<TARGET_FILE:trireme> $<TARGET_FILE:networks> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/layouts-${name} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT TRM_CACHE=${CMAKE_BINARY_DIR}/cache) # the probe of rates, once
endforeach()

# Language models: the same bits under every layout.
foreach(case layouts formats)
  add_test(NAME mpi/language-${case}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/language.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/language-${case} PROPERTIES LABELS mpi TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT TRM_CACHE=${CMAKE_BINARY_DIR}/cache)
endforeach()

# A language model killed at random moments and resumed.
add_test(NAME mpi/language-kill
  COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/kill_language.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 4)
set_tests_properties(mpi/language-kill PROPERTIES LABELS mpi TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL ON)

# Serving clusters.
foreach(case layouts drain reload groups turns follower bad)
  add_test(NAME mpi/serve-${case}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/serve.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/serve-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT TRM_CACHE=${CMAKE_BINARY_DIR}/cache)
endforeach()

# Replicas killed under clients; many times under the label slow.
add_test(NAME mpi/serve-kill COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/serve_kill.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 4)
add_test(NAME mpi/serve-kill-often COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/serve_kill.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 41)
set_tests_properties(mpi/serve-kill PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
set_tests_properties(mpi/serve-kill-often PROPERTIES LABELS "mpi;slow" TIMEOUT 900 SKIP_RETURN_CODE 77 RUN_SERIAL ON)

# Everything at once for a while, hostile clients among it: nothing is left, nothing grows.
add_test(NAME mpi/serve-soak COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/soak.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 40)
add_test(NAME mpi/serve-soak-long COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/soak.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} 600)
set_tests_properties(mpi/serve-soak PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
set_tests_properties(mpi/serve-soak-long PROPERTIES LABELS "mpi;slow" TIMEOUT 1200 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
if(NOT TRM_SANITIZE STREQUAL "") # they keep what was freed; one process, so that leaks are seen at its end
  set_tests_properties(mpi/serve-soak mpi/serve-soak-long PROPERTIES ENVIRONMENT "TRM_SOAK_RANKS=1;TRM_SOAK_MEMORY=off")
endif()

# Two hosts, which are network namespaces of this machine: skipped where those are not allowed.
foreach(case score bytes listen rollcall serve cut)
  add_test(NAME mpi/two-hosts-${case}
    COMMAND ${CMAKE_SOURCE_DIR}/tests/mpi/two-hosts.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(mpi/two-hosts-${case} PROPERTIES LABELS mpi TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
endforeach()
set_tests_properties(mpi/two-hosts-rollcall mpi/two-hosts-listen PROPERTIES RUN_SERIAL OFF RESOURCE_LOCK two-hosts) # they wait

# A real Slurm on this machine: opt-in (TRM_LAB_SLURM=1).
add_test(NAME mpi/slurm COMMAND ${CMAKE_SOURCE_DIR}/tests/lab/slurm.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR})
set_tests_properties(mpi/slurm PROPERTIES LABELS "mpi;slow" TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON)
