# Target maskring_kernels: the CUDA kernels as a static library.
#
# nvcc is searched in CUDACXX, PATH and the usual folders, then in the pip packages of the extra `cuda` in the Python
# environment that runs the build. Without nvcc, a message says so and the target does not exist.
set(MASKRING_CUDA_ARCHITECTURES 75 80 86 87 89 90 100 110 120
  CACHE STRING "Compute capabilities to compile the kernels for; the last one also as PTX, for future GPUs")

include(CheckLanguage)

# The pip packages put nvcc into <site-packages>/nvidia/cu13/bin.
function(maskring_find_pip_nvcc result)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
      "import importlib.util as u; s = u.find_spec('nvidia'); print(*(s.submodule_search_locations if s else []), sep=';')"
    OUTPUT_STRIP_TRAILING_WHITESPACE OUTPUT_VARIABLE roots)
  list(TRANSFORM roots APPEND /cu13/bin)
  find_program(MASKRING_PIP_NVCC nvcc PATHS ${roots} NO_DEFAULT_PATH)
  set(${result} "${MASKRING_PIP_NVCC}" PARENT_SCOPE)
endfunction()

if(NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(MASKRING_SYSTEM_NVCC nvcc PATHS /usr/local/cuda/bin "$ENV{CUDA_HOME}/bin")
  if(MASKRING_SYSTEM_NVCC)
    set(CMAKE_CUDA_COMPILER "${MASKRING_SYSTEM_NVCC}")
  else()
    maskring_find_pip_nvcc(pip_nvcc)
    if(pip_nvcc)
      set(CMAKE_CUDA_COMPILER "${pip_nvcc}")
      # The packages have their libraries in lib, but nvcc.profile names lib64.
      cmake_path(GET pip_nvcc PARENT_PATH toolkit)
      string(APPEND CMAKE_CUDA_FLAGS_INIT " -L${toolkit}/../lib")
    endif()
  endif()
endif()

# CMake wants a value before the language is enabled; the target below sets the real one.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES OFF)
endif()
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(STATUS "CUDA kernels: skipped, no nvcc found (install CUDA toolkit 12.8 or newer, or pip install 'maskring[cuda]')")
  return()
endif()
enable_language(CUDA)
include(${CMAKE_CURRENT_LIST_DIR}/cuda_architectures.cmake)
maskring_cuda_architectures(${CMAKE_CUDA_COMPILER_VERSION} maskring_architectures ${MASKRING_CUDA_ARCHITECTURES})

set(kernels ${CMAKE_CURRENT_LIST_DIR}/windowed_affinity/cuda)
add_library(maskring_kernels STATIC
  ${kernels}/dispatch.cpp ${kernels}/simt.cu ${kernels}/gather.cu ${kernels}/mma.cu)
target_include_directories(maskring_kernels PUBLIC ${kernels})
set_target_properties(maskring_kernels PROPERTIES
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES "${maskring_architectures}"
  CUDA_RUNTIME_LIBRARY Static POSITION_INDEPENDENT_CODE ON)
list(JOIN maskring_warnings "," host_warnings)
# -Xptxas=-v prints registers and spills of every kernel.
target_compile_options(maskring_kernels PRIVATE
  $<$<COMPILE_LANGUAGE:CXX>:${maskring_warnings}>
  $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host_warnings} -Xptxas=-v --threads=2>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${MASKRING_WERROR}>>:-Werror=all-warnings>)
message(STATUS "CUDA kernels: ${CMAKE_CUDA_COMPILER} for ${maskring_architectures}")
