# Operators of language models at the lower instruction sets, which run-time dispatch would not choose here.
foreach(isa scalar avx2 avx512 avx512_vnni)
  foreach(test lm_linear_op lm_experts)
    add_test(NAME kernels/test_${test}_${isa} COMMAND kernels_test_${test})
    set_tests_properties(kernels/test_${test}_${isa} PROPERTIES LABELS unit TIMEOUT 120 ENVIRONMENT "TRM_CPU_ISA=${isa}")
  endforeach()
endforeach()
