// 32 registers of 16 floats.
#define KERNEL kernel_avx512
#define KERNEL_NAME "avx512"
#define LANES 16
#define GROUP 4
#define ACCUMULATORS 24
#include "kernels.inl"
