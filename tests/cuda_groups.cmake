# Collectives between the (emulated) devices of several ranks.
if(NOT TARGET trireme_cuda_emulated)
  return()
endif()
add_executable(group_ranks ${CMAKE_CURRENT_LIST_DIR}/cuda/group_ranks.c)
target_link_libraries(group_ranks PRIVATE trm_warnings trm_parallel)
trm_opens_modules(group_ranks)
foreach(case two four late nccl half faults absent staged)
  add_test(NAME cuda/groups-${case} COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/groups.sh $<TARGET_FILE:networks>
    $<TARGET_FILE:group_ranks> ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(cuda/groups-${case} PROPERTIES LABELS "mpi;cuda" TIMEOUT 300 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT "${TRM_CUDA_EMULATION}")
endforeach()
target_link_libraries(cuda_test_group_engine PRIVATE trm_worker) # runs graphs, not kernels
target_link_libraries(cuda_test_group_give_up PRIVATE trm_worker)
