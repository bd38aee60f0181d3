// The scheduler of fibers behind cuda_on_cpu.h.
#include "cuda_on_cpu.h"

#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <thread>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#endif
#if defined(WITH_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_ignore_thread_begin();
extern "C" void __tsan_ignore_thread_end();
#endif
#if defined(WITH_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
// Saves the callee-saved registers on this stack and goes on with another one. glibc's swapcontext would do, but
// makes two system calls for each switch, and a tensor-core kernel switches millions of times.
extern "C" void cuda_on_cpu_switch(void** save, void* load);
asm(R"(
.text
.globl cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#else
#include <ucontext.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr std::size_t STACK_BYTES = 256 << 10;

enum class State { ready, at_barrier, in_collective, done };

// All lanes' messages of the collective under way and of the one before, which late lanes still read.
struct Warp {
    Message messages[2][WARP];
    unsigned arrived = 0;
    unsigned generation = 0;
    unsigned members = 0;
};

struct Copy {
    void* shared;
    const void* global;
    int bytes, size;
};

struct Fiber {
    uint3 index;
    int lane;
    Warp* warp;
    State state;
    unsigned waits_for;                    // generation of the warp's collective
    std::vector<std::deque<Copy>> groups;  // the last one is open
    std::unique_ptr<char[]> stack;
#if defined(__x86_64__)
    void* context;
#else
    ucontext_t context;
#endif
    void* tsan = nullptr;
    void* asan = nullptr;
};

// One OS thread: runs block after block.
struct Worker {
    const std::function<void()>* body = nullptr;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::unique_ptr<unsigned char[]> shared;
    Fiber* current = nullptr;
    int alive = 0, at_barrier = 0;
    unsigned barriers = 0;  // passed so far
    // What ThreadSanitizer is told to order by. All threads begin after the block does, and it ends after all of them.
    // Two tokens for barriers: a thread may arrive at the next one before another has left this one.
    char begin_token = 0, end_token = 0, barrier_tokens[2] = {};
#if defined(__x86_64__)
    void* context = nullptr;
#else
    ucontext_t context;
#endif
    void* tsan = nullptr;
    void* asan = nullptr;
    const void* stack_bottom = nullptr;
    std::size_t stack_size = 0;
};

constinit thread_local Worker* worker = nullptr;

bool early_copies() {
    static const char* value = std::getenv("CUDA_ON_CPU_ASYNC");
    return value != nullptr && std::strcmp(value, "early") == 0;
}

void acquire([[maybe_unused]] void* token) {
#if defined(WITH_TSAN)
    __tsan_acquire(token);
#endif
}

void release([[maybe_unused]] void* token) {
#if defined(WITH_TSAN)
    __tsan_release(token);
#endif
}

// From the running fiber back to the scheduler.
[[gnu::noinline]] __attribute__((no_sanitize("thread"))) void leave() {
    Worker* w = worker;
    Fiber* f = w->current;
#if defined(WITH_TSAN)
    __tsan_switch_to_fiber(w->tsan, 1);
#endif
#if defined(WITH_ASAN)
    __sanitizer_start_switch_fiber(f->state == State::done ? nullptr : &f->asan, w->stack_bottom, w->stack_size);
#endif
#if defined(__x86_64__)
    cuda_on_cpu_switch(&f->context, w->context);
#else
    swapcontext(&f->context, &w->context);
#endif
#if defined(WITH_ASAN)
    __sanitizer_finish_switch_fiber(f->asan, &w->stack_bottom, &w->stack_size);
#endif
}

// From the scheduler into a fiber.
__attribute__((no_sanitize("thread"))) void enter(Fiber& f) {
    Worker* w = worker;
    w->current = &f;
    threadIdx = f.index;
#if defined(WITH_TSAN)
    __tsan_switch_to_fiber(f.tsan, 1);
#endif
#if defined(WITH_ASAN)
    __sanitizer_start_switch_fiber(&w->asan, f.stack.get(), STACK_BYTES);
#endif
#if defined(__x86_64__)
    cuda_on_cpu_switch(&w->context, f.context);
#else
    swapcontext(&w->context, &f.context);
#endif
#if defined(WITH_ASAN)
    __sanitizer_finish_switch_fiber(w->asan, nullptr, nullptr);
#endif
}

// The first function on a fiber's stack.
__attribute__((no_sanitize("thread"))) void run_thread() {
    Worker* w = worker;
#if defined(WITH_ASAN)
    __sanitizer_finish_switch_fiber(nullptr, &w->stack_bottom, &w->stack_size);
#endif
    acquire(&w->begin_token);
    (*w->body)();
    release(&w->end_token);
    {
        const Ignored ignored;
        for (const auto& group : w->current->groups)
            if (!group.empty()) die("the thread ended while its asynchronous copies were under way");
        w->current->state = State::done;
    }
    leave();
    std::abort();  // nobody resumes a finished fiber
}

void prepare(Fiber& f) {
    if (!f.stack) f.stack.reset(new char[STACK_BYTES]);
#if defined(WITH_ASAN)
    __asan_unpoison_memory_region(f.stack.get(), STACK_BYTES);  // frames of the thread that ended here
#endif
#if defined(WITH_TSAN)
    f.tsan = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
    // As cuda_on_cpu_switch leaves a stack: six registers, the address to return to, and one word that makes the
    // stack pointer at the entry of run_thread what the calling convention wants (8 modulo 16).
    auto top = reinterpret_cast<std::uintptr_t>(f.stack.get() + STACK_BYTES) & ~std::uintptr_t(15);
    auto* words = reinterpret_cast<std::uintptr_t*>(top) - 8;
    std::fill(words, words + 8, 0);
    words[6] = reinterpret_cast<std::uintptr_t>(&run_thread);
    f.context = words;
#else
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK_BYTES;
    f.context.uc_link = nullptr;
    makecontext(&f.context, run_thread, 0);
#endif
}

void begin_block(Worker& w, dim3 block, std::size_t shared_bytes) {
    const int threads = int(block.x * block.y * block.z);
    w.alive = threads;
    w.at_barrier = 0;
    w.warps.assign((threads + WARP - 1) / WARP, {});
    w.fibers.resize(threads);
    w.shared.reset(new unsigned char[shared_bytes]);
    std::memset(w.shared.get(), 0xff, shared_bytes);  // NaN as float and as half
    for (int i = 0; i < threads; ++i) {
        Fiber& f = w.fibers[i];
        f.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        f.lane = i % WARP;
        f.warp = &w.warps[i / WARP];
        f.warp->members |= 1u << f.lane;
        f.state = State::ready;
        f.groups.assign(1, {});
        prepare(f);
    }
    release(&w.begin_token);
}

// Lets every thread run until it waits or ends; true when any could.
bool advance(Worker& w, const std::vector<int>& order) {
    bool moved = false;
    for (int i : order) {
        Fiber& f = w.fibers[i];
        if (f.state == State::in_collective && f.warp->generation != f.waits_for) f.state = State::ready;
        if (f.state != State::ready) continue;
        moved = true;
        enter(f);
        if (f.state != State::done) continue;
        --w.alive;
#if defined(WITH_TSAN)
        __tsan_destroy_fiber(f.tsan);
#endif
    }
    if (w.at_barrier > 0 && w.at_barrier == w.alive) {
        w.at_barrier = 0;
        ++w.barriers;
        moved = true;
        for (Fiber& f : w.fibers)
            if (f.state == State::at_barrier) f.state = State::ready;
    }
    return moved;
}

void run_block(Worker& w, dim3 block, std::size_t shared_bytes, const std::vector<int>& order) {
    begin_block(w, block, shared_bytes);
    while (w.alive > 0) {
        if (advance(w, order)) continue;
        for (const Fiber& f : w.fibers)
            if (f.state != State::done) threadIdx = f.index;
        std::fprintf(stderr, "cuda_on_cpu: %d of %d threads at a barrier, the others in warp collectives\n",
                     w.at_barrier, w.alive);
        die("deadlock: a barrier or collective that not all threads reach");
    }
    acquire(&w.end_token);
}

}  // namespace

Ignored::Ignored() {
#if defined(WITH_TSAN)
    __tsan_ignore_thread_begin();
#endif
}

Ignored::~Ignored() {
#if defined(WITH_TSAN)
    __tsan_ignore_thread_end();
#endif
}

void die(const char* reason) {
    std::fprintf(stderr, "cuda_on_cpu: %s: block (%u,%u,%u) thread (%u,%u,%u)\n", reason, blockIdx.x, blockIdx.y,
                 blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    std::abort();
}

int lane() {
    const Ignored ignored;
    return worker->current->lane;
}

unsigned char* dynamic_shared() {
    const Ignored ignored;
    return worker->shared.get();
}

void block_barrier() {
    const Ignored ignored;
    Worker* w = worker;
    char* token = &w->barrier_tokens[w->barriers % 2];
    release(token);
    ++w->at_barrier;
    w->current->state = State::at_barrier;
    leave();
    acquire(token);
}

const Message* exchange(const Message& message) {
    const Ignored ignored;
    Fiber* f = worker->current;
    Warp* warp = f->warp;
    const unsigned generation = warp->generation;
    Message* slots = warp->messages[generation % 2];
    slots[f->lane] = message;
    warp->arrived |= 1u << f->lane;
    release(slots);
    if (warp->arrived == warp->members) {
        warp->arrived = 0;
        ++warp->generation;
    } else {
        f->state = State::in_collective;
        f->waits_for = generation;
        leave();
    }
    acquire(slots);
    return slots;
}

static void deliver(const Copy& copy) {
    // Not ignored: this is the kernel's access to shared and global memory.
    std::memcpy(copy.shared, copy.global, copy.bytes);
    std::memset(static_cast<char*>(copy.shared) + copy.bytes, 0, copy.size - copy.bytes);
}

void copy_async(void* shared, const void* global, int bytes, int size) {
    const auto misaligned = [size](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % size != 0; };
    if (misaligned(shared) || (bytes > 0 && misaligned(global))) die("misaligned asynchronous copy");
    const Copy copy{shared, global, bytes, size};
    if (early_copies()) return deliver(copy);
    const Ignored ignored;
    worker->current->groups.back().push_back(copy);
}

void commit_group() {
    const Ignored ignored;
    worker->current->groups.emplace_back();
}

// Takes the oldest copy of all groups but the `pending` youngest closed ones; false when there is none.
static bool take_copy(int pending, Copy& copy) {
    const Ignored ignored;
    auto& groups = worker->current->groups;
    while (int(groups.size()) - 1 > pending) {
        auto& oldest = groups.front();
        if (!oldest.empty()) {
            copy = oldest.front();
            oldest.pop_front();
            return true;
        }
        groups.erase(groups.begin());
    }
    return false;
}

void wait_group(int pending) {
    Copy copy;
    while (take_copy(pending, copy)) deliver(copy);
}

cudaError_t run_grid(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& body) {
    const std::size_t blocks = std::size_t(grid.x) * grid.y * grid.z,
                      threads = std::size_t(block.x) * block.y * block.z;
    if (blocks == 0 || threads == 0 || threads > 1024 || grid.y > 65535 || grid.z > 65535 || block.z > 64)
        return cudaErrorInvalidConfiguration;
    const char* seed = std::getenv("CUDA_ON_CPU_SEED");
    const char* wanted = std::getenv("CUDA_ON_CPU_WORKERS");
    const std::size_t workers = std::min<std::size_t>(blocks, wanted ? std::atoi(wanted) : 1);
    std::atomic<std::size_t> next{0};
    const auto work = [&] {
        const Ignored ignored;
        Worker own;
        worker = &own;
        own.body = &body;
        blockDim = block;
        gridDim = grid;
#if defined(WITH_TSAN)
        own.tsan = __tsan_get_current_fiber();
#endif
        std::vector<int> order(threads);
        std::iota(order.begin(), order.end(), 0);
        std::mt19937 random(seed ? std::atoi(seed) : 0);
        for (std::size_t i; (i = next++) < blocks;) {
            blockIdx = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
            if (seed) std::shuffle(order.begin(), order.end(), random);
            run_block(own, block, shared_bytes, order);
        }
        worker = nullptr;
    };
    std::vector<std::thread> pool;
    for (std::size_t i = 0; i < workers; ++i) pool.emplace_back(work);
    for (std::thread& thread : pool) thread.join();
    return cudaSuccess;
}

}  // namespace cuda_on_cpu

// What launchers ask of the runtime. Weak, because tests that link a double of the runtime have their own.
extern "C" {

[[gnu::weak]] cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

[[gnu::weak]] cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {  // of multiprocessors
    const char* wanted = std::getenv("CUDA_ON_CPU_PROCESSORS");
    *value = wanted ? std::atoi(wanted) : 1;
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

}  // extern "C"
