# Target maskring_plugins: the TensorRT plugin with the CUDA kernels inside, libmaskring_plugins.so.
#
# NvInferRuntime.h is searched in TENSORRT_ROOT (variable or environment), then where JetPack, Debian and NVIDIA's
# archives put it. Only headers are needed, because the library does not link libnvinfer. Without headers or kernels, a
# message says so and the target does not exist.
set(MASKRING_MIN_TENSORRT 10.3)

if(NOT TARGET maskring_kernels)
  message(STATUS "TensorRT plugin: skipped, it needs the CUDA kernels")
  return()
endif()

find_path(MASKRING_TENSORRT_INCLUDE NvInferRuntime.h
  HINTS "${TENSORRT_ROOT}" "$ENV{TENSORRT_ROOT}"
  PATHS /usr/local/tensorrt /usr/local/TensorRT /opt/tensorrt /opt/TensorRT
  PATH_SUFFIXES include "include/${CMAKE_LIBRARY_ARCHITECTURE}")
if(NOT MASKRING_TENSORRT_INCLUDE)
  message(STATUS "TensorRT plugin: skipped, no NvInferRuntime.h found (set TENSORRT_ROOT to TensorRT's folder, "
    "or apt-get install libnvinfer-headers-dev)")
  return()
endif()

# Since 10.11, TRT_*_ENTERPRISE holds the version and NV_TENSORRT_* refer to it.
file(STRINGS "${MASKRING_TENSORRT_INCLUDE}/NvInferVersion.h" version_lines
  REGEX "define (NV_TENSORRT|TRT)_(MAJOR|MINOR)(_ENTERPRISE)? +[0-9]+")
string(REGEX REPLACE ".*_MAJOR[A-Z_]* +([0-9]+).*_MINOR[A-Z_]* +([0-9]+).*" "\\1.\\2" version "${version_lines}")
if(version VERSION_LESS MASKRING_MIN_TENSORRT)
  message(STATUS "TensorRT plugin: skipped, ${MASKRING_TENSORRT_INCLUDE} is TensorRT ${version} "
    "(the plugin needs ${MASKRING_MIN_TENSORRT} or newer)")
  return()
endif()

add_library(maskring_plugins SHARED windowed_affinity/tensorrt/plugin.cpp windowed_affinity/tensorrt/problem_checks.cpp)
target_include_directories(maskring_plugins PRIVATE windowed_affinity)
target_include_directories(maskring_plugins SYSTEM PRIVATE
  "${MASKRING_TENSORRT_INCLUDE}" ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_compile_definitions(maskring_plugins PRIVATE "MASKRING_VERSION=\"${PROJECT_VERSION}\"")
target_compile_options(maskring_plugins PRIVATE ${maskring_warnings} -Wpedantic)
target_link_libraries(maskring_plugins PRIVATE maskring_kernels ${CMAKE_DL_LIBS})
# Only the symbols in plugin.map are exported, so that the library cannot clash with others in the process.
set(exports ${CMAKE_CURRENT_LIST_DIR}/windowed_affinity/tensorrt/plugin.map)
target_link_options(maskring_plugins PRIVATE -Wl,--no-undefined "-Wl,--version-script=${exports}")
set_target_properties(maskring_plugins PROPERTIES
  CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON CUDA_RUNTIME_LIBRARY Static LINK_DEPENDS "${exports}")
install(TARGETS maskring_plugins LIBRARY DESTINATION maskring/plugins)
message(STATUS "TensorRT plugin: for TensorRT ${version} (${MASKRING_TENSORRT_INCLUDE})")
