// The functions of cuda/tensor_core.cuh in C++, written from the PTX ISA's tables of lane layouts.
#pragma once

#include "cuda_on_cpu.h"

namespace maskring {

struct FragmentA {
    unsigned r[4];
};
struct FragmentB {
    unsigned r[2];
};
struct Accumulator {
    float v[4];
};

// Half `index` (0 or 1) of a register.
inline float half_of(unsigned reg, int index) {
    const auto bits = static_cast<unsigned short>(reg >> (16 * index));
    return __half2float(__ushort_as_half(bits));
}

// m16n8k16, A row-major: lane 4 * g + t holds rows g and g + 8 (odd registers), columns 2t, 2t + 1 and those + 8
// (registers 2, 3). B: column g, rows 2t, 2t + 1 and those + 8 (register 1). Result: as A's first two registers.
inline void multiply_add(Accumulator& d, const FragmentA& a, const FragmentB& b) {
    struct Both {  // halves as floats: register by register, low half first
        float a[8], b[4];
    } own;
    for (int i = 0; i < 8; ++i) own.a[i] = half_of(a.r[i / 2], i % 2);
    for (int i = 0; i < 4; ++i) own.b[i] = half_of(b.r[i / 2], i % 2);
    const auto* all = cuda_on_cpu::exchange(cuda_on_cpu::pack(own));
    const cuda_on_cpu::Ignored ignored;
    const int lane = cuda_on_cpu::lane();
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        float sum = d.v[i];
        for (int quad = 0; quad < 4; ++quad) {
            const auto left = cuda_on_cpu::unpack<Both>(all[4 * (row % 8) + quad]);
            const auto right = cuda_on_cpu::unpack<Both>(all[4 * column + quad]);
            for (int k = 0; k < 4; ++k) sum += left.a[2 * (row / 8 + 2 * (k / 2)) + k % 2] * right.b[k];
        }
        d.v[i] = sum;
    }
}

// Element (row, column) of an 8 x 8 matrix whose rows the lanes of a group of eight have named.
inline unsigned short element_of(const cuda_on_cpu::Message* all, int matrix, int row, int column) {
    const __half* start;
    {
        const cuda_on_cpu::Ignored ignored;
        start = cuda_on_cpu::unpack<const __half*>(all[8 * matrix + row]);
    }
    return __half_as_ushort(start[column]);  // the kernel's own access to shared memory
}

inline void load_four(FragmentB& first, FragmentB& second, const __half* row, bool transposed) {
    if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) cuda_on_cpu::die("ldmatrix: a row is not aligned to 16 bytes");
    const auto* all = cuda_on_cpu::exchange(cuda_on_cpu::pack(row));
    const int lane = cuda_on_cpu::lane(), major = lane / 4, minor = 2 * (lane % 4);
    for (int matrix = 0; matrix < 4; ++matrix) {
        unsigned reg = 0;
        for (int i = 0; i < 2; ++i) {
            const unsigned bits =
                transposed ? element_of(all, matrix, minor + i, major) : element_of(all, matrix, major, minor + i);
            reg |= bits << (16 * i);
        }
        (matrix < 2 ? first : second).r[matrix % 2] = reg;
    }
}

inline void load_matrices(FragmentB& first, FragmentB& second, const __half* row) {
    load_four(first, second, row, false);
}
inline void load_matrices_transposed(FragmentB& first, FragmentB& second, const __half* row) {
    load_four(first, second, row, true);
}

template <int BYTES>
void copy_async(__half* shared, const __half* global, bool inside) {
    cuda_on_cpu::copy_async(shared, global, inside ? BYTES : 0, BYTES);
}
inline void close_copies() { cuda_on_cpu::commit_group(); }
template <int PENDING>
void await_copies() {
    cuda_on_cpu::wait_group(PENDING);
}

}  // namespace maskring
