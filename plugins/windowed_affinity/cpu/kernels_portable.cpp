// For any processor: vectors of 4 floats that the compiler turns into what its target has, scalars if need be.
#define KERNEL kernel_portable
#define KERNEL_NAME "scalar"
#define LANES 4
#define GROUP 2
#define ACCUMULATORS 8
#include "kernels.inl"
