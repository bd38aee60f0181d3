// Runs CUDA kernels on a CPU, from their source: force-included before each .cu, which is then compiled as C++.
//
//   g++ -std=c++20 -DMASKRING_ON_CPU -include cuda_on_cpu.h -x c++ -c kernel.cu   (and runtime.cpp once)
//
// NVIDIA's own headers give types, half and the prototypes of the runtime; this file gives what only nvcc's device
// pass has: threadIdx and the like, shared memory, barriers, warp collectives, tensor-core and cp.async operations.
// A block runs on one OS thread and each of its CUDA threads is a fiber there, so a barrier is a switch of fibers.
//
// What makes mistakes visible:
//   - shared memory is a heap block of exactly the size that was asked for, filled with NaN before every CTA: reading
//     what was never written gives NaN, reading beyond the end is found by AddressSanitizer;
//   - under ThreadSanitizer (clang) every CUDA thread is a thread of its own: a missing barrier is a reported race;
//   - CUDA_ON_CPU_SEED=n shuffles the order in which the threads of a block run;
//   - cp.async delivers as late as it may (when it is waited for), or at once with CUDA_ON_CPU_ASYNC=early;
//   - CUDA_ON_CPU_PROCESSORS=n is the number of multiprocessors that the GPU claims to have (1);
//   - a barrier or collective that not all threads reach aborts with the thread's index.
// Not modelled: weak memory ordering, bank conflicts, occupancy, rounding of approximate instructions.
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __shared__
#define __shared__ static_assert(false, "static shared memory is not modelled; use dynamic_shared()");

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};

namespace cuda_on_cpu {

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = ~0u;

// What one lane hands to the others of its warp.
struct Message {
    alignas(16) unsigned char bytes[64];
};

// --- implemented in runtime.cpp ---------------------------------------------------------------------------------

// Runs body once per CUDA thread of the grid; threadIdx and the like are set.
cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body);

// Shared memory of the running block.
unsigned char* dynamic_shared();

// Returns when all threads of the block that still run have arrived.
void block_barrier();

// Returns what all 32 lanes of the warp handed in; valid until the lane's next collective but one.
const Message* exchange(const Message& message);

// The lane's index, and abort with a reason and the thread's index.
int lane();
[[noreturn]] void die(const char* reason);

// Asynchronous copies of this thread: start one (the rest of 16 bytes is zeroed), close a group, wait until at most
// `pending` groups are under way.
void copy_async(void* shared, const void* global, int bytes, int size);
void commit_group();
void wait_group(int pending);

// Accesses inside belong to the emulator, not to the kernel: ThreadSanitizer looks away.
struct Ignored {
    Ignored();
    ~Ignored();
};

// --- typed collectives -------------------------------------------------------------------------------------------

template <typename T>
Message pack(const T& value) {
    static_assert(sizeof(T) <= sizeof(Message));
    Message message{};
    std::memcpy(message.bytes, &value, sizeof(T));
    return message;
}

template <typename T>
T unpack(const Message& message) {
    T value;
    std::memcpy(&value, message.bytes, sizeof(T));
    return value;
}

template <typename T>
T shuffle(T value, int source) {
    const Message* all = exchange(pack(value));
    const Ignored ignored;
    return unpack<T>(all[source & (WARP - 1)]);
}

inline void require_all_lanes(unsigned mask) {
    if (mask != ALL_LANES) die("warp collectives of a part of a warp are not modelled");
}

}  // namespace cuda_on_cpu

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments,
                             std::size_t shared_bytes = 0, cudaStream_t = nullptr) {
    return cuda_on_cpu::run_grid(grid, block, shared_bytes, [&] {
        [&]<std::size_t... I>(std::index_sequence<I...>) {
            kernel(*static_cast<std::decay_t<Parameters>*>(arguments[I])...);
        }(std::index_sequence_for<Parameters...>{});
    });
}

inline void __syncthreads() { cuda_on_cpu::block_barrier(); }
inline void __syncwarp(unsigned mask = ~0u) {
    cuda_on_cpu::require_all_lanes(mask);
    cuda_on_cpu::exchange({});
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
    cuda_on_cpu::require_all_lanes(mask);
    return cuda_on_cpu::shuffle(value, source);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int flip) {
    cuda_on_cpu::require_all_lanes(mask);
    return cuda_on_cpu::shuffle(value, cuda_on_cpu::lane() ^ flip);
}
inline int __any_sync(unsigned mask, int predicate) {
    cuda_on_cpu::require_all_lanes(mask);
    const cuda_on_cpu::Message* all = cuda_on_cpu::exchange(cuda_on_cpu::pack(predicate));
    const cuda_on_cpu::Ignored ignored;
    return std::any_of(all, all + cuda_on_cpu::WARP, [](const auto& m) { return cuda_on_cpu::unpack<int>(m) != 0; });
}
using std::max;
using std::min;
