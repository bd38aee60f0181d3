# maskring_cuda_architectures(VERSION RESULT ARCHITECTURE ...)
#
# Sets RESULT to the values of CMAKE_CUDA_ARCHITECTURES for the compute capabilities ARCHITECTURE..., as far as
# nvcc VERSION knows them: machine code for each, and PTX of the newest for GPUs to come. PTX of 8.0 serves every other
# GPU that has no code of its own; without it, PTX of 12.0 would leave out Jetson Thor (11.0).
function(maskring_cuda_architectures version result)
  set(architectures ${ARGN})
  if(version VERSION_LESS 12.8)  # JetPack 6 has 12.6
    list(REMOVE_ITEM architectures 100 110 120)
  elseif(version VERSION_LESS 13.0)  # these call Jetson Thor 10.1
    list(TRANSFORM architectures REPLACE "^110$" 101)
  endif()
  list(GET architectures -1 newest)
  set(ptx ${newest})
  foreach(architecture IN LISTS architectures)
    if(architecture GREATER_EQUAL 80)
      list(APPEND ptx 80)
      break()
    endif()
  endforeach()
  list(REMOVE_DUPLICATES ptx)
  list(TRANSFORM architectures APPEND -real)
  list(TRANSFORM ptx APPEND -virtual)
  set(${result} ${architectures} ${ptx} PARENT_SCOPE)
endfunction()
