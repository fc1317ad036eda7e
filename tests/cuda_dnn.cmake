# Plans of the real cuDNN for the graphs that the backend builds, without a GPU: a mock driver in front of the library
# path, and a file that describes an H200.
if(NOT TRM_CUDA_FOUND)
  return()
endif()
add_library(mock_cuda_driver SHARED cuda/dnn/mock_driver.c)
set_target_properties(mock_cuda_driver PROPERTIES OUTPUT_NAME cuda SOVERSION 1
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/mock_cuda_driver)
target_link_libraries(mock_cuda_driver PRIVATE trm_warnings)
add_executable(cuda_dnn_plans cuda/dnn/test_dnn_plans.c ${CMAKE_SOURCE_DIR}/kernels/cuda/dnn_graph.c
  ${CMAKE_SOURCE_DIR}/kernels/cuda/dnn_plan.c ${CMAKE_SOURCE_DIR}/kernels/cuda/errors.c)
target_include_directories(cuda_dnn_plans SYSTEM PRIVATE ${TRM_CUDA_HEADERS})
target_link_libraries(cuda_dnn_plans PRIVATE trm_warnings trm_base PkgConfig::CHECK CUDA::cudart ${TRM_CUDNN_LIBRARY})
target_link_options(cuda_dnn_plans PRIVATE LINKER:-rpath-link,${CUDAToolkit_LIBRARY_DIR})
set_target_properties(cuda_dnn_plans PROPERTIES BUILD_RPATH ${CUDAToolkit_LIBRARY_DIR})
add_dependencies(cuda_dnn_plans mock_cuda_driver)
foreach(part quick slow)
  add_test(NAME cuda/dnn_plans-${part}
    COMMAND cuda_dnn_plans ${CMAKE_CURRENT_LIST_DIR}/cuda/dnn/h200.json ${part})
  set_tests_properties(cuda/dnn_plans-${part} PROPERTIES LABELS "unit;cuda" TIMEOUT 300
    ENVIRONMENT "LD_LIBRARY_PATH=$<TARGET_FILE_DIR:mock_cuda_driver>")
endforeach()
set_tests_properties(cuda/dnn_plans-slow PROPERTIES LABELS "slow;cuda")
