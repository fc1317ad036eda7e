# Operators of language models at the lower instruction sets, which run-time dispatch would not choose here.
foreach(isa scalar avx2 avx512 avx512_vnni)
  foreach(test lm_linear_op lm_experts)
    add_test(NAME kernels/test_${test}_${isa} COMMAND kernels_test_${test})
    set_tests_properties(kernels/test_${test}_${isa} PROPERTIES LABELS unit TIMEOUT 120
      ENVIRONMENT "TRM_CPU_ISA=${isa};OMP_WAIT_POLICY=passive")
  endforeach()
endforeach()
# Teams of more threads than a machine may have: threads that wait must not spin.
set_property(TEST kernels/test_lm_linear kernels/test_lm_experts worker/test_lm_logits APPEND PROPERTY ENVIRONMENT OMP_WAIT_POLICY=passive)

# How fast the products run here: build/<preset>/tests/bench_lm_linear -n N -k K -m M -t threads
add_executable(bench_lm_linear EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/bench/lm_linear.c)
target_link_libraries(bench_lm_linear PRIVATE trm_warnings trm_kernels)

# What a streamed token costs: build/<preset>/tests/bench_lm_stream
add_executable(bench_lm_stream EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/bench/lm_stream.c)
target_link_libraries(bench_lm_stream PRIVATE trm_warnings trm_worker)
target_compile_definitions(bench_lm_stream PRIVATE TRM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
# What masks of constrained decoding cost: build/<preset>/tests/bench_lm_constraint MODEL
add_executable(bench_lm_constraint EXCLUDE_FROM_ALL ${CMAKE_CURRENT_SOURCE_DIR}/bench/lm_constraint.c)
target_link_libraries(bench_lm_constraint PRIVATE trm_warnings trm_worker)

# Language models on the emulated device (tests/cuda.cmake): logits against PyTorch's.
if(TARGET trireme_cuda_emulated)
  trm_opens_modules(worker_test_lm_logits)
  add_dependencies(worker_test_lm_logits trireme_cuda_emulated)
  add_test(NAME cuda/lm-logits COMMAND worker_test_lm_logits)
  set_tests_properties(cuda/lm-logits PROPERTIES LABELS cuda TIMEOUT 600
    ENVIRONMENT "${TRM_CUDA_EMULATION};TRM_TEST_DEVICE=cuda;TRM_TEST_BRIEF=1;TRM_TEST_STEPS=2")
  add_test(NAME cuda/lm-logits-all COMMAND worker_test_lm_logits)
  set_tests_properties(cuda/lm-logits-all PROPERTIES LABELS "cuda;slow" TIMEOUT 3000
    ENVIRONMENT "${TRM_CUDA_EMULATION};TRM_TEST_DEVICE=cuda")
endif()
