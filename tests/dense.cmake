# The attention cores of lower instruction sets, which run-time dispatch would not choose here.
foreach(isa scalar avx2)
  add_test(NAME kernels/test_dense_attention_${isa} COMMAND kernels_test_dense_attention)
  set_tests_properties(kernels/test_dense_attention_${isa} PROPERTIES LABELS unit TIMEOUT 120
    ENVIRONMENT "TRM_CPU_ISA=${isa}")
endforeach()
