# The CUDA backend without a GPU: its C files as they are, its kernels compiled as C++ into fibers, over an emulated CUDA
# runtime, cuBLASLt, cuDNN and NCCL (tests/cuda/emulation). Needs the toolkit's headers only.
if(NOT TARGET trm_cuda_host)
  message(STATUS "tests/cuda: no CUDA headers: the kernels are not tested")
  return()
endif()
if(NOT CMAKE_CXX_COMPILER)
  message(STATUS "tests/cuda: no C++ compiler: the kernels are not tested")
  return()
endif()
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_EXTENSIONS ON)

file(GLOB emulation CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/emulation/*.cpp)
set_source_files_properties(${trm_cuda_cu} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
# one library is both the module and the driver that is probed for it
file(GLOB selftest CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/emulation/*.cu)
set_source_files_properties(${selftest} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
add_library(trireme_cuda_emulated MODULE ${trm_cuda_cu} ${selftest} ${emulation} $<TARGET_OBJECTS:trm_cuda_host>)
target_compile_definitions(trireme_cuda_emulated PRIVATE TRM_EMULATE)
target_include_directories(trireme_cuda_emulated PRIVATE ${CMAKE_SOURCE_DIR})
target_include_directories(trireme_cuda_emulated SYSTEM PRIVATE ${TRM_CUDA_HEADERS})
target_compile_options(trireme_cuda_emulated PRIVATE -Wall -Wextra -Wno-unknown-pragmas -O1 -g1 -ffp-contract=off
  -fvisibility=hidden -fvisibility-inlines-hidden)
target_link_options(trireme_cuda_emulated PRIVATE LINKER:-Bsymbolic
  LINKER:--version-script=${CMAKE_CURRENT_LIST_DIR}/cuda/emulation/exports.map)
target_link_libraries(trireme_cuda_emulated PRIVATE Threads::Threads m)
set_target_properties(trireme_cuda_emulated PROPERTIES LINKER_LANGUAGE CXX)
# the real module: every symbol of it is found, and without a real driver it says so
if(TARGET trireme_cuda)
  add_test(NAME cuda/module COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/module.sh $<TARGET_FILE:trireme>
    $<TARGET_FILE:trireme_cuda> $<TARGET_FILE:trireme_cuda_emulated> ${CMAKE_SOURCE_DIR})
  set_tests_properties(cuda/module PROPERTIES LABELS "unit;cuda" TIMEOUT 60)
endif()
set(kernels_ran ${CMAKE_CURRENT_BINARY_DIR}/kernels-ran.txt)
set(TRM_CUDA_EMULATION
  "TRM_CUDA_MODULE=$<TARGET_FILE:trireme_cuda_emulated>;TRM_CUDA_DRIVER=$<TARGET_FILE:trireme_cuda_emulated>"
  "TRM_NCCL_LIBRARY=$<TARGET_FILE:trireme_cuda_emulated>" "TRM_EMU_COVERAGE=${kernels_ran}"
  "TRM_CACHE=${CMAKE_CURRENT_BINARY_DIR}/cuda-cache" TRM_PROBE=quick)

file(GLOB cuda_tests CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/test_*.c)
foreach(source ${cuda_tests})
  get_filename_component(name ${source} NAME_WE)
  add_executable(cuda_${name} ${source})
  target_link_libraries(cuda_${name} PRIVATE trm_warnings trm_kernels PkgConfig::CHECK)
  target_include_directories(cuda_${name} SYSTEM PRIVATE ${TRM_CUDA_HEADERS})
  if(name MATCHES "^test_lm_(sample|failures|stages)$") # with the worker's sampler, and the worker
    target_link_libraries(cuda_${name} PRIVATE trm_worker)
    target_compile_definitions(cuda_${name} PRIVATE TRM_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  endif()
  trm_opens_modules(cuda_${name})
  add_dependencies(cuda_${name} trireme_cuda_emulated)
  add_test(NAME cuda/${name} COMMAND cuda_${name})
  set_tests_properties(cuda/${name} PROPERTIES LABELS "unit;cuda" TIMEOUT 300 ENVIRONMENT "${TRM_CUDA_EMULATION}"
    FIXTURES_REQUIRED kernels_ran)
  list(APPEND kernel_tests cuda/${name})
  # threads of a block, and blocks, in another order: what a missing barrier changes
  add_test(NAME cuda/${name}-shuffled COMMAND cuda_${name})
  set_tests_properties(cuda/${name}-shuffled PROPERTIES LABELS "unit;cuda;long" TIMEOUT 300
    ENVIRONMENT "${TRM_CUDA_EMULATION};TRM_EMU_ORDER=rand:1")
endforeach()
# every kernel of ours has run in one of them
add_test(NAME cuda/coverage-begin COMMAND ${CMAKE_COMMAND} -E rm -f ${kernels_ran})
set_tests_properties(cuda/coverage-begin PROPERTIES LABELS "unit;cuda" FIXTURES_SETUP kernels_ran)
add_test(NAME cuda/coverage COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/coverage.py ${CMAKE_SOURCE_DIR}/kernels/cuda ${kernels_ran})
set_tests_properties(cuda/coverage PROPERTIES LABELS "unit;cuda" DEPENDS "${kernel_tests}" FIXTURES_REQUIRED kernels_ran)

# The program on the emulated device: conformance, whole networks, layouts, the command line.
# late: work runs only when somebody waits for it, so that a missing wait shows; guard: host code that touches device memory
# crashes
if(EXISTS ${onnx_data}/node)
  foreach(variant "" late guard)
    string(TOUPPER "${variant}" VARIANT)
    set(name cuda/conformance)
    set(environment "${TRM_CUDA_EMULATION}")
    if(variant)
      string(APPEND name "-${variant}")
      list(APPEND environment "TRM_EMU_${VARIANT}=1")
    endif()
    add_test(NAME ${name} COMMAND conformance --data ${onnx_data}/node --data ${onnx_data}/simple
      --data ${onnx_data}/pytorch-converted --data ${onnx_data}/pytorch-operator --jobs 2 --device cuda --rounds 4
      --expect ${CMAKE_CURRENT_LIST_DIR}/conformance/unsupported.txt --min 996)
    set_tests_properties(${name} PROPERTIES LABELS "conformance;cuda" TIMEOUT 900 ENVIRONMENT "${environment}")
  endforeach()
endif()
file(GLOB network_models CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/data/networks/*/model.onnx)
set(network_folders "")
set(network_folders_half "")
foreach(model ${network_models})
  get_filename_component(folder ${model} DIRECTORY)
  list(APPEND network_folders ${folder})
  if(NOT folder MATCHES "/yolo$") # a detector keeps other boxes in 16 bits
    list(APPEND network_folders_half ${folder})
  endif()
endforeach()
add_test(NAME cuda/networks COMMAND networks --device cuda ${network_folders})
add_test(NAME cuda/networks-bf16 COMMAND networks --device cuda --dtype bf16 --tolerance 0.03 ${network_folders_half})
add_test(NAME cuda/networks-f16 COMMAND networks --device cuda --dtype f16 --tolerance 0.005 ${network_folders_half})
add_test(NAME cuda/networks-late COMMAND networks --device cuda ${network_folders})
set_tests_properties(cuda/networks-late PROPERTIES LABELS "networks;cuda" TIMEOUT 300
  ENVIRONMENT "${TRM_CUDA_EMULATION};TRM_EMU_LATE=1;TRM_EMU_LEAKS=1")
set_tests_properties(cuda/networks cuda/networks-bf16 cuda/networks-f16 PROPERTIES LABELS "networks;cuda" TIMEOUT 300
  ENVIRONMENT "${TRM_CUDA_EMULATION}")
foreach(layout tensor=2 pipeline=2 tensor=2,pipeline=2)
  string(REGEX REPLACE "[=,]+" "-" name ${layout})
  add_test(NAME cuda/layouts-${name} COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/layouts.sh $<TARGET_FILE:networks>
    ${CMAKE_SOURCE_DIR} ${layout})
  set_tests_properties(cuda/layouts-${name} PROPERTIES LABELS "mpi;cuda" TIMEOUT 300 SKIP_RETURN_CODE 77 PROCESSORS 2
    ENVIRONMENT "${TRM_CUDA_EMULATION}")
endforeach()
add_test(NAME cuda/commands COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/commands.sh $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR})
set_tests_properties(cuda/commands PROPERTIES LABELS "unit;cuda" TIMEOUT 120 ENVIRONMENT "${TRM_CUDA_EMULATION}")
add_test(NAME cuda/serve COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/serve.py $<TARGET_FILE:trireme> ${CMAKE_SOURCE_DIR})
set_tests_properties(cuda/serve PROPERTIES LABELS "mpi;cuda" TIMEOUT 300 SKIP_RETURN_CODE 77 PROCESSORS 2
  ENVIRONMENT "${TRM_CUDA_EMULATION}")
# the same over ranks that have a device each
foreach(case layouts killed long)
  add_test(NAME cuda/serve-ranks-${case} COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/serve_ranks.py $<TARGET_FILE:trireme>
    ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(cuda/serve-ranks-${case} PROPERTIES LABELS "mpi;cuda" TIMEOUT 600 SKIP_RETURN_CODE 77 RUN_SERIAL ON
    ENVIRONMENT "${TRM_CUDA_EMULATION}")
endforeach()
set_tests_properties(cuda/serve-ranks-long PROPERTIES LABELS "mpi;cuda;slow" TIMEOUT 1200)
foreach(case memory faults)
  add_test(NAME cuda/language/${case} COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/language.sh $<TARGET_FILE:trireme>
    ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(cuda/language/${case} PROPERTIES LABELS "unit;cuda" TIMEOUT 120 ENVIRONMENT "${TRM_CUDA_EMULATION}")
endforeach()
foreach(case layouts formats preempt one-rank stages)
  add_test(NAME cuda/language/${case} COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/language.sh $<TARGET_FILE:trireme>
    ${CMAKE_SOURCE_DIR} ${case})
  set_tests_properties(cuda/language/${case} PROPERTIES LABELS "mpi;cuda" TIMEOUT 300 SKIP_RETURN_CODE 77 PROCESSORS 2
    ENVIRONMENT "${TRM_CUDA_EMULATION}")
endforeach()
add_test(NAME cuda/language/formats-all COMMAND ${CMAKE_CURRENT_LIST_DIR}/cuda/language.sh $<TARGET_FILE:trireme>
  ${CMAKE_SOURCE_DIR} formats)
set_tests_properties(cuda/language/formats-all PROPERTIES LABELS "mpi;cuda;slow" TIMEOUT 1200 SKIP_RETURN_CODE 77 PROCESSORS 2
  ENVIRONMENT "${TRM_CUDA_EMULATION};MORE=1;REQUESTS=8")
