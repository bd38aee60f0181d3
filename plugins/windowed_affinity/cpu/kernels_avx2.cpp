// 16 registers of 8 floats.
#define KERNEL kernel_avx2
#define KERNEL_NAME "avx2"
#define LANES 8
#define GROUP 2
#define ACCUMULATORS 12
#include "kernels.inl"
