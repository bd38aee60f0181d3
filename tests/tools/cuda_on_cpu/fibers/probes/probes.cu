// Tiny kernels that try the emulator itself, each right or with one mistake: probes NAME.
#include <cstdio>
#include <string>

#include "tensor_core.cuh"

namespace maskring {

constexpr int THREADS = 64;

// Thread t adds what its neighbour wrote; right only with a barrier between.
template <bool BARRIER>
__global__ void neighbours(int* out) {
    int* shared = reinterpret_cast<int*>(dynamic_shared());
    shared[threadIdx.x] = threadIdx.x;
    if (BARRIER) __syncthreads();
    out[threadIdx.x] = shared[(threadIdx.x + 1) % THREADS];
}

// Two rounds: the second barrier protects what the first round reads.
template <bool BARRIER>
__global__ void rounds(int* out) {
    int* shared = reinterpret_cast<int*>(dynamic_shared());
    int sum = 0;
    for (int i = 0; i < 2; ++i) {
        shared[threadIdx.x] = threadIdx.x + i;
        __syncthreads();
        sum += shared[(threadIdx.x + 1) % THREADS];
        if (BARRIER) __syncthreads();
    }
    out[threadIdx.x] = sum;
}

__global__ void beyond_shared(int* out) {
    int* shared = reinterpret_cast<int*>(dynamic_shared());
    out[threadIdx.x] = shared[threadIdx.x + 1];
}

__global__ void half_a_barrier(int*) {
    if (threadIdx.x < WARP / 2)
        __syncthreads();
    else
        __shfl_xor_sync(0xffffffffu, 1, 1);
}

// Copies arrive only for those who wait.
template <int PENDING>
__global__ void copies(int* out) {
    __half* shared = reinterpret_cast<__half*>(dynamic_shared()) + 2 * threadIdx.x;
    copy_async<4>(shared, reinterpret_cast<const __half*>(out + threadIdx.x), true);
    close_copies();
    await_copies<PENDING>();
    const int got = *reinterpret_cast<const int*>(shared);
    await_copies<0>();
    out[threadIdx.x] = got == int(threadIdx.x) ? 1 : 0;
}

// One product of matrices with every step that the kernels use: 16 x 16 by 16 x 8, all elements small integers.
__global__ void product(int* out) {
    __half* shared = reinterpret_cast<__half*>(dynamic_shared());  // B by rows, then B by columns
    const int lane = threadIdx.x % WARP;
    const auto left = [](int row, int k) { return float((3 * row + k) % 7 - 3); };
    const auto right = [](int k, int column) { return float((k + 5 * column) % 11 - 5); };
    for (int i = threadIdx.x; i < 128; i += THREADS) {
        shared[i] = __float2half(right(i / 8, i % 8));
        shared[128 + i] = __float2half(right(i % 16, i / 16));
    }
    __syncthreads();
    FragmentA a;
    for (int r = 0; r < 4; ++r) {
        const int row = lane / 4 + 8 * (r % 2), k = 2 * (lane % 4) + 8 * (r / 2);
        a.r[r] = pack_halves(left(row, k), left(row, k + 1));
    }
    FragmentB by_rows, by_columns, twice;
    load_matrices_transposed(by_rows, twice, shared + 8 * (lane % 16));
    load_matrices(by_columns, twice, shared + 128 + 16 * (lane % 8) + 8 * (lane / 8 % 2));
    Accumulator first{}, second{};
    multiply_add(first, a, by_rows);
    multiply_add(second, a, by_columns);
    bool right_so_far = true;
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        float expected = 0;
        for (int k = 0; k < 16; ++k) expected += left(row, k) * right(k, column);
        right_so_far = right_so_far && first.v[i] == expected && second.v[i] == expected;
    }
    out[threadIdx.x] = right_so_far;
}

}  // namespace maskring

int main(int, char** arguments) {
    using namespace maskring;
    const std::string name = arguments[1];
    int out[THREADS];
    for (int i = 0; i < THREADS; ++i) out[i] = i;
    int* pointer = out;
    void* parameters[] = {&pointer};
    const auto run = [&](void (*kernel)(int*), int shared) {
        if (cudaLaunchKernel(kernel, dim3(1), dim3(THREADS), parameters, shared) != cudaSuccess) std::puts("refused");
    };
    if (name == "barrier") run(neighbours<true>, 4 * THREADS);
    if (name == "no barrier") run(neighbours<false>, 4 * THREADS);
    if (name == "rounds") run(rounds<true>, 4 * THREADS);
    if (name == "rounds without a barrier") run(rounds<false>, 4 * THREADS);
    if (name == "beyond shared memory") run(beyond_shared, 4 * THREADS);
    if (name == "half a barrier") run(half_a_barrier, 0);
    if (name == "copies") run(copies<0>, 4 * THREADS);
    if (name == "copies not awaited") run(copies<1>, 4 * THREADS);
    if (name == "product") run(product, 512);
    for (int value : out) std::printf("%d ", value);
}
