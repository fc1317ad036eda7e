# The CUDA backend: a module that the program opens at run time (kernels/cuda_module.h). Built where a toolkit is found;
# -DTRM_CUDA=OFF leaves it out. The program itself links no CUDA library either way.
option(TRM_CUDA "build the CUDA backend where a toolkit is found" ON)
option(TRM_CUDA_MODULE "with TRM_CUDA: build its module; OFF: only what the emulation in tests/cuda needs" ON)

# What a module takes from the program that opens it: all of base/, exported.
function(trm_opens_modules target)
  set_target_properties(${target} PROPERTIES ENABLE_EXPORTS ON)
  target_link_options(${target} PRIVATE
    "LINKER:--whole-archive,$<TARGET_FILE:trm_base>,--no-whole-archive")
  add_dependencies(${target} trm_base)
endfunction()

set(TRM_CUDA_FOUND OFF)
# the emulation in tests/cuda needs the toolkit's headers only
find_path(TRM_CUDA_HEADERS cuda_bf16.h HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include
  NO_CMAKE_SYSTEM_PATH)
file(GLOB trm_cuda_c CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.c)
file(GLOB trm_cuda_cu CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)

if(TRM_CUDA AND TRM_CUDA_HEADERS)
  # prepare functions and adapters, in C: one set of objects for the real module and the emulated one
  add_library(trm_cuda_host OBJECT ${trm_cuda_c})
  set_target_properties(trm_cuda_host PROPERTIES POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden)
  target_include_directories(trm_cuda_host PRIVATE ${CMAKE_SOURCE_DIR})
  target_include_directories(trm_cuda_host SYSTEM PRIVATE ${TRM_CUDA_HEADERS})
  target_link_libraries(trm_cuda_host PRIVATE trm_warnings)
endif()

if(TRM_CUDA AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX}) # nvcc is often not on PATH
  find_program(TRM_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
  if(TRM_NVCC)
    set(CMAKE_CUDA_COMPILER ${TRM_NVCC})
  endif()
endif()
include(CheckLanguage)
if(TRM_CUDA AND TRM_CUDA_HEADERS) # objects of nvcc want the C++ runtime, and the emulation is C++
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
    if(TRM_CCACHE)
      set(CMAKE_CXX_COMPILER_LAUNCHER ${TRM_CCACHE})
    endif()
  endif()
endif()
if(TRM_CUDA AND TRM_CUDA_MODULE AND TRM_CUDA_HEADERS AND CMAKE_CXX_COMPILER)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      if(CMAKE_BUILD_TYPE STREQUAL "Release")
        set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 80-virtual) # Ampere, Hopper; PTX for anything newer
      else()
        set(CMAKE_CUDA_ARCHITECTURES 90a-real)
      endif()
    endif()
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
    set(CMAKE_CUDA_STANDARD 17)
    enable_language(CUDA)
    if(TRM_CCACHE)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${TRM_CCACHE})
    endif()
    find_package(CUDAToolkit 12.4 REQUIRED)
    find_path(TRM_CUDNN_INCLUDE cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
    find_library(TRM_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR})
    if(TRM_CUDNN_LIBRARY)
      set(TRM_CUDA_FOUND ON)
    else()
      message(STATUS "CUDA backend: not built: the toolkit is there, cuDNN is not")
    endif()
  endif()
endif()

if(TRM_CUDA_FOUND)
  add_library(trireme_cuda MODULE ${trm_cuda_cu} $<TARGET_OBJECTS:trm_cuda_host>)
  target_include_directories(trireme_cuda PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(trireme_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings -Xcompiler=-Wall,-Wextra,-Werror,-fvisibility=hidden>)
  target_link_libraries(trireme_cuda PRIVATE CUDA::cudart CUDA::cublasLt ${TRM_CUDNN_LIBRARY})
  if(CMAKE_BUILD_TYPE STREQUAL "Release" AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8)
    target_compile_options(trireme_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>) # a third of the size
  endif()
  # NCCL is opened at run time (group_load.c), and is then found beside the others
  # its own symbols first: the program exports names, too
  target_link_options(trireme_cuda PRIVATE LINKER:-Bsymbolic)
  set_target_properties(trireme_cuda PROPERTIES LINKER_LANGUAGE CXX
    LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
    BUILD_RPATH ${CUDAToolkit_LIBRARY_DIR} INSTALL_RPATH "$ORIGIN;${CUDAToolkit_LIBRARY_DIR}")
  message(STATUS "CUDA backend: toolkit ${CUDAToolkit_VERSION}, for ${CMAKE_CUDA_ARCHITECTURES}")
elseif(TRM_CUDA)
  message(STATUS "CUDA backend: not built")
endif()
