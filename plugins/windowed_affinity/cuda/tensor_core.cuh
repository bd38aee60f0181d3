// Tensor-core instructions and asynchronous copies (sm_80 and up), each behind one function. Lane layouts: PTX ISA,
// sections "Matrix Fragments for mma.m16n8k16" and "ldmatrix". tests/tools/cuda_on_cpu/fibers has C++ versions.
#pragma once

#include "device.cuh"

#ifdef MASKRING_ON_CPU
#include "tensor_core_on_cpu.h"
#else

namespace maskring {

// One lane's part of a 16 x 16 matrix A of halves, row by row.
struct FragmentA {
    unsigned r[4];
};

// One lane's part of a 16 x 8 matrix B of halves.
struct FragmentB {
    unsigned r[2];
};

// One lane's part of a 16 x 8 matrix of floats: rows lane / 4 (0, 1) and lane / 4 + 8 (2, 3), columns
// 2 * (lane % 4) and the next.
struct Accumulator {
    float v[4];
};

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

// d += a * b
__device__ __forceinline__ void multiply_add(Accumulator& d, const FragmentA& a, const FragmentB& b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d.v[0]), "+f"(d.v[1]), "+f"(d.v[2]), "+f"(d.v[3])
        : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b.r[0]), "r"(b.r[1]));
}

// Four 8 x 8 matrices; lane 8 * i + j names row j (16 aligned bytes) of matrix i. first.r holds matrices 0 and 1,
// second.r matrices 2 and 3. Each lane gets columns 2 * (lane % 4) and the next of row lane / 4.
__device__ __forceinline__ void load_matrices(FragmentB& first, FragmentB& second, const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(first.r[0]), "=r"(first.r[1]), "=r"(second.r[0]), "=r"(second.r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// The same, transposed: each lane gets rows 2 * (lane % 4) and the next of column lane / 4.
__device__ __forceinline__ void load_matrices_transposed(FragmentB& first, FragmentB& second, const __half* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(first.r[0]), "=r"(first.r[1]), "=r"(second.r[0]), "=r"(second.r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// Starts copying BYTES (16 or 4, both pointers aligned to as many) to shared memory, zeros instead if not `inside`.
template <int BYTES>
__device__ __forceinline__ void copy_async(__half* shared, const __half* global, bool inside) {
    const int bytes = inside ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                     "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                     "r"(bytes)
                     : "memory");
}

__device__ __forceinline__ void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING closed groups of this thread's copies are in flight.
template <int PENDING>
__device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

}  // namespace maskring
#endif

namespace maskring {

// Two floats as halves, rounded to nearest, the first one in the low bits.
__device__ __forceinline__ unsigned pack_halves(float low, float high) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const unsigned*>(&pair);
}

}  // namespace maskring
