// Runs a CUDA kernel on the host: every thread of a block is a fiber, and a barrier is where it hands over to the next.
// Included before the kernel's source, by building.py, which also turns `extern __shared__ T name[];` into a pointer.
// What it does not have: warp intrinsics, atomics between blocks that run at once, the memory model, banks.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __syncthreads() emulator::wait(__LINE__)

struct Dim { unsigned int x = 0, y = 0, z = 0; };
static Dim threadIdx, blockIdx, blockDim, gridDim;

template <class T> static inline T min(T a, T b) { return b < a ? b : a; }
template <class T> static inline T max(T a, T b) { return a < b ? b : a; }
template <class T> static inline T __ldg(const T* at) { return *at; }
static inline int __float_as_int(float value) { int bits; memcpy(&bits, &value, 4); return bits; }
static inline float __int_as_float(int bits) { float value; memcpy(&value, &bits, 4); return value; }
static inline int atomicMax(int* at, int value) { int old = *at; *at = max(old, value); return old; }
template <class T> static inline T atomicAdd(T* at, T value) { T old = *at; *at += value; return old; }

#ifdef __SANITIZE_ADDRESS__
extern "C" void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* fake_stack, const void** old_bottom, size_t* old_size);
extern "C" void __asan_unpoison_memory_region(const volatile void* at, size_t size);
#endif

#if defined(__x86_64__) && !defined(EMULATOR_UCONTEXT)
extern "C" __attribute__((visibility("hidden"))) void emulator_switch(void** from, void* to);
asm(R"(
    .text
    .hidden emulator_switch
    .globl emulator_switch
    .type emulator_switch, @function
emulator_switch:
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
    .size emulator_switch, . - emulator_switch
)");
#define EMULATOR_OWN_SWITCH
#else
#include <ucontext.h>
#endif

namespace emulator {

enum Order { FORWARD, REVERSE, SHUFFLED };
#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 1 << 20;  // the sanitiser writes its report on it
#else
constexpr size_t STACK_BYTES = 64 << 10;
#endif

struct Fiber {
    char* stack = nullptr;
    Dim index;
    int line = 0;  // of the barrier that it waits at; 0 before the first
    bool ended = false;
#ifdef EMULATOR_OWN_SWITCH
    void* state = nullptr;
#else
    ucontext_t state;
#endif
};

static char* shared;  // the block's dynamic shared memory
static Fiber* fibers;
static Fiber* running;
static decltype(Fiber::state) scheduler;
static void (*body)(void*);  // the kernel, with its arguments
static void* arguments;
#ifdef __SANITIZE_ADDRESS__
static const void* main_bottom;
static size_t main_size;
#endif

static void switch_to(decltype(Fiber::state)& from, decltype(Fiber::state)& to)
{
#ifdef EMULATOR_OWN_SWITCH
    emulator_switch(&from, to);
#else
    swapcontext(&from, &to);
#endif
}

static void to_scheduler()
{
    Fiber* self = running;
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(self->ended ? nullptr : &fake, main_bottom, main_size);
#endif
    switch_to(self->state, scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, &main_bottom, &main_size);
#endif
}

[[maybe_unused]] static void wait(int line)  // a kernel without barriers is fine
{
    running->line = line;
    to_scheduler();
}

static void enter()
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
    body(arguments);
    running->ended = true;
    to_scheduler();
    abort();  // an ended fiber is never resumed
}

static void prepare(Fiber& fiber)
{
    fiber.line = 0;
    fiber.ended = false;
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(fiber.stack, STACK_BYTES);  // frames that were left, not returned from
#endif
#ifdef EMULATOR_OWN_SWITCH
    void** top = (void**)(fiber.stack + STACK_BYTES);
    *--top = nullptr;  // where enter would return to, 8 bytes below an aligned place as after a call
    *--top = (void*)enter;
    for (int registers = 0; registers < 6; ++registers) *--top = nullptr;
    fiber.state = top;
#else
    getcontext(&fiber.state);
    fiber.state.uc_stack.ss_sp = fiber.stack;
    fiber.state.uc_stack.ss_size = STACK_BYTES;
    fiber.state.uc_link = nullptr;
    makecontext(&fiber.state, enter, 0);
#endif
}

static void resume(Fiber& fiber)
{
    running = &fiber;
    threadIdx = fiber.index;
#ifdef __SANITIZE_ADDRESS__
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack, STACK_BYTES);
#endif
    switch_to(scheduler, fiber.state);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

static void arrange(int* turns, int count, Order order, uint64_t& seed)
{
    for (int i = 0; i < count; ++i) turns[i] = order == REVERSE ? count - 1 - i : i;
    for (int i = count - 1; order == SHUFFLED && i > 0; --i) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        std::swap(turns[i], turns[(seed >> 33) % (i + 1)]);
    }
}

// One block to its end; why it cannot have ended so on a GPU, or null
static const char* run_block(int threads, int* turns, Order order, uint64_t& seed)
{
    for (int thread = 0; thread < threads; ++thread) prepare(fibers[thread]);
    for (;;) {
        arrange(turns, threads, order, seed);
        for (int turn = 0; turn < threads; ++turn) resume(fibers[turns[turn]]);
        int ended = 0, line = fibers[0].line;
        for (int thread = 0; thread < threads; ++thread) {
            ended += fibers[thread].ended;
            if (!fibers[thread].ended && fibers[thread].line != line) return "threads wait at different barriers";
        }
        if (ended == threads) return nullptr;
        if (ended) return "threads ended while others wait at a barrier";
    }
}

static void make_fibers(int threads)
{
    fibers = new Fiber[threads];
    for (int thread = 0; thread < threads; ++thread) {
        const unsigned int x = thread % blockDim.x, y = thread / blockDim.x % blockDim.y;
        fibers[thread].index = {x, y, thread / blockDim.x / blockDim.y};
        fibers[thread].stack = (char*)aligned_alloc(16, STACK_BYTES);
    }
}

static void free_fibers(int threads)
{
    for (int thread = 0; thread < threads; ++thread) free(fibers[thread].stack);
    delete[] fibers;
}

// All blocks, in the order of the threads too; shared memory is exactly as large as asked for, and NaN or -1 all over
static const char* run_grid(size_t shared_bytes, Order order, uint64_t seed)
{
    const int blocks = gridDim.x * gridDim.y * gridDim.z, threads = blockDim.x * blockDim.y * blockDim.z;
    int *turns = new int[threads], *block_turns = new int[blocks];
    const char* fault = nullptr;
    make_fibers(threads);
    arrange(block_turns, blocks, order, seed);
    for (int turn = 0; turn < blocks && !fault; ++turn) {
        const unsigned int block = block_turns[turn], x = block % gridDim.x, y = block / gridDim.x % gridDim.y;
        blockIdx = {x, y, block / gridDim.x / gridDim.y};
        shared = (char*)malloc(shared_bytes);
        memset(shared, 0xFF, shared_bytes);
        fault = run_block(threads, turns, order, seed);
        free(shared);
    }
    free_fibers(threads);
    delete[] turns;
    delete[] block_turns;
    return fault;
}

template <class... A, size_t... I>
static void call(void (*kernel)(A...), void** values, std::index_sequence<I...>)
{
    kernel(*(std::remove_const_t<A>*)values[I]...);
}

template <class... A> static constexpr int count(void (*)(A...)) { return sizeof...(A); }

// What a caller has to match: 'p', 'f' or 'i' and the size of each argument
template <class... A> static void describe(void (*)(A...), char* kinds, int* sizes)
{
    int i = 0;
    ((kinds[i] = std::is_pointer_v<A> ? 'p' : std::is_floating_point_v<A> ? 'f' : 'i', sizes[i++] = sizeof(A)), ...);
}

}  // namespace emulator

#define EMULATE(kernel)                                                                                                \
    extern "C" int emulator_count() { return emulator::count(kernel); }                                                \
    extern "C" void emulator_describe(char* kinds, int* sizes) { emulator::describe(kernel, kinds, sizes); }           \
    extern "C" const char* emulator_run(                                                                               \
        const unsigned int* grid, const unsigned int* block, size_t shared_bytes, int order, uint64_t seed,            \
        void** values)                                                                                                 \
    {                                                                                                                  \
        gridDim = {grid[0], grid[1], grid[2]};                                                                         \
        blockDim = {block[0], block[1], block[2]};                                                                     \
        emulator::arguments = values;                                                                                  \
        emulator::body = [](void* given) {                                                                             \
            emulator::call(kernel, (void**)given, std::make_index_sequence<emulator::count(kernel)>());                \
        };                                                                                                             \
        return emulator::run_grid(shared_bytes, (emulator::Order)order, seed);                                         \
    }
