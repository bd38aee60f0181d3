// 32 registers of 4 floats; NEON is part of every 64-bit Arm.
#define KERNEL kernel_neon
#define KERNEL_NAME "neon"
#define LANES 4
#define GROUP 4
#define ACCUMULATORS 24
#include "kernels.inl"
