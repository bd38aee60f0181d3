# Target maskring_onnxruntime: the operator for onnxruntime, libmaskring_onnxruntime.so. It needs no headers of
# onnxruntime (windowed_affinity/onnxruntime/abi.hpp). With the CUDA kernels it also serves the CUDA provider, and the
# torch operator on a GPU (windowed_affinity/onnxruntime/c_api.cpp).
set(operator ${CMAKE_CURRENT_LIST_DIR}/windowed_affinity/onnxruntime)
add_library(maskring_onnxruntime SHARED ${operator}/operator.cpp $<TARGET_OBJECTS:maskring_cpu>)
target_include_directories(maskring_onnxruntime PRIVATE windowed_affinity)
target_compile_options(maskring_onnxruntime PRIVATE ${maskring_warnings} -Wpedantic)
target_link_libraries(maskring_onnxruntime PRIVATE Threads::Threads)
if(TARGET maskring_kernels)
  target_sources(maskring_onnxruntime PRIVATE ${operator}/cuda_kernel.cpp ${operator}/c_api.cpp)
  target_include_directories(maskring_onnxruntime SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  target_compile_definitions(maskring_onnxruntime PRIVATE MASKRING_WITH_CUDA)
  target_link_libraries(maskring_onnxruntime PRIVATE maskring_kernels ${CMAKE_DL_LIBS})
  message(STATUS "onnxruntime operator: for CPU and CUDA")
else()
  message(STATUS "onnxruntime operator: for CPU")
endif()
# Only the symbols in operator.map are exported, so that the library cannot clash with others in the process.
if(APPLE)
  target_link_options(maskring_onnxruntime PRIVATE
    -Wl,-exported_symbol,_RegisterCustomOps -Wl,-exported_symbol,_maskring_onnxruntime_has_cuda)
else()
  target_link_options(maskring_onnxruntime PRIVATE "-Wl,--version-script=${operator}/operator.map")
endif()
set_target_properties(maskring_onnxruntime PROPERTIES
  CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON CUDA_RUNTIME_LIBRARY Static
  SUFFIX .so  # on macOS too: operator_library.py looks for one name
  LINK_DEPENDS ${operator}/operator.map)
install(TARGETS maskring_onnxruntime LIBRARY DESTINATION maskring/plugins)
