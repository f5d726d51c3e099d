// As much of CUDA as the kernels use, for a C++ compiler: a cube's units are fibers of one thread, which
// change at barriers; between barriers they run in a random order, so that a result that depends on an order
// is seen to. Shared memory begins as NaN. Tensor cores (wmma) are loops, by the warp's first lane, over what
// all have agreed to load; places must be aligned as NVIDIA asks for.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __align__(n) __attribute__((aligned(n)))

struct uint3 { unsigned x, y, z; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct int3 { int x, y, z; };
struct int4 { int x, y, z, w; };
struct float2 { float x, y; };
struct float3 { float x, y, z; };
struct float4 { float x, y, z, w; };
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
static uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

// Numbers of 16 bits. Both round to even, as NVIDIA's conversions do.
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float x) {
        uint32_t all;
        memcpy(&all, &x, 4);
        bits = x != x ? 0x7fff : (all + 0x7fff + ((all >> 16) & 1)) >> 16;
    }
    operator float() const {
        uint32_t all = uint32_t(bits) << 16;
        float x;
        memcpy(&x, &all, 4);
        return x;
    }
};
struct __half {
    _Float16 number;
    __half() = default;
    __half(float x) : number(x) {}
    operator float() const { return number; }
};
struct __nv_bfloat162 { __nv_bfloat16 x, y; };
struct __half2 { __half x, y; };
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return x; }
inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return x; }

inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __frsqrt_rn(float x) { return 1 / sqrtf(x); }
inline float rsqrt(float x) { return 1 / sqrtf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }

namespace emulator {

[[noreturn]] inline void fail(const char* what) {
    fprintf(stderr, "emulated GPU: %s\n", what);
    abort();
}

enum State { READY, AT_WARP, AT_CUBE, DONE };
struct Unit {
    // Where its stack stands while others run.
    void* at;
    std::vector<char> stack;
    State state;
};
static void* scheduler;
static std::vector<Unit> units;
static unsigned current, random_state;

inline unsigned random_below(unsigned n) {
    random_state = random_state * 1664525 + 1013904223;
    return (random_state >> 8) % n;
}

// Leaves a stack as a call leaves it (System V, x86-64), and goes on with another.
__attribute__((naked, noinline)) static void change(void**, void*) {
    asm("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
        "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}

__attribute__((optimize("O2"))) inline void wait(State state) {
    units[current].state = state;
    change(&units[current].at, scheduler);
}

static const void* work;
template <class F> void enter() {
    (*static_cast<const F*>(work))();
    wait(DONE);
}

inline void set_unit(unsigned i) {
    current = i;
    threadIdx = {i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y)};
}

// A cube whose units meet at barriers.
template <class F> __attribute__((optimize("O2"))) void together(F& f, unsigned count) {
    if (units.size() < count) units.resize(count);
    work = &f;
    for (unsigned i = 0; i < count; i++) {
        Unit& unit = units[i];
        unit.stack.resize(256 << 10);
        unit.state = READY;
        auto top = (reinterpret_cast<uintptr_t>(unit.stack.data()) + unit.stack.size()) & ~uintptr_t(63);
        auto at = reinterpret_cast<void**>(top) - 8;
        at[6] = reinterpret_cast<void*>(&enter<F>);
        unit.at = at;
    }
    std::vector<unsigned> order(count);
    for (unsigned i = 0; i < count; i++) order[i] = i;
    for (;;) {
        for (unsigned i = count; i > 1; i--) std::swap(order[i - 1], order[random_below(i)]);
        bool any = false;
        for (unsigned i : order) {
            if (units[i].state != READY) continue;
            any = true;
            set_unit(i);
            change(&scheduler, units[i].at);
            if (units[i].at < static_cast<void*>(units[i].stack.data() + 4096)) fail("a unit's stack is at its end");
        }
        unsigned done = 0, waiting = 0;
        for (unsigned i = 0; i < count; i++) {
            done += units[i].state == DONE;
            waiting += units[i].state == AT_CUBE;
        }
        if (done == count) return;
        if (done + waiting == count) {
            for (unsigned i = 0; i < count; i++)
                if (units[i].state == AT_CUBE) units[i].state = READY;
            continue;
        }
        for (unsigned first = 0; first < count; first += 32) {
            unsigned last = std::min(first + 32, count), there = 0;
            for (unsigned i = first; i < last; i++) there += units[i].state == AT_WARP;
            if (there == last - first) {
                for (unsigned i = first; i < last; i++) units[i].state = READY;
                any = true;
            }
        }
        if (!any) fail("units wait for each other at different barriers");
    }
}

template <class A> A argument(void* at) {
    if constexpr (std::is_pointer_v<A>) return reinterpret_cast<A>(at);
    else return *reinterpret_cast<const std::remove_reference_t<A>*>(at);
}

template <class... A, size_t... I>
void each(void (*kernel)(A...), void* const* arguments, unsigned char* shared, size_t bytes, bool barriers,
          std::index_sequence<I...>) {
    auto unit = [=] { kernel(argument<A>(arguments[I])...); };
    unsigned count = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned z = 0; z < gridDim.z; z++)
        for (unsigned y = 0; y < gridDim.y; y++)
            for (unsigned x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                memset(shared, 0xff, bytes);
                if (barriers) together(unit, count);
                else for (unsigned i = 0; i < count; i++) set_unit(i), unit();
            }
}

// A kernel on so many cubes of so many units.
template <class... A>
void run(void (*kernel)(A...), void* const* arguments, unsigned char* shared, size_t bytes, bool barriers,
         const unsigned* cubes, const unsigned* unit, unsigned seed) {
    gridDim = {cubes[0], cubes[1], cubes[2]};
    blockDim = {unit[0], unit[1], unit[2]};
    random_state = seed;
    each(kernel, arguments, shared, bytes, barriers, std::index_sequence_for<A...>());
}

}

inline void __syncthreads() { emulator::wait(emulator::AT_CUBE); }
inline void __syncwarp() { emulator::wait(emulator::AT_WARP); }

namespace nvcuda { namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
namespace precision { struct tf32 {}; }
enum layout_t { mem_row_major, mem_col_major };

template <class U, int M, int N, int K> struct shape;
template <int M, int N, int K> struct shape<matrix_a, M, N, K> { enum { rows = M, columns = K }; };
template <int M, int N, int K> struct shape<matrix_b, M, N, K> { enum { rows = K, columns = N }; };
template <int M, int N, int K> struct shape<accumulator, M, N, K> { enum { rows = M, columns = N }; };

template <class U, int M, int N, int K, class T, class L = void> struct fragment {
    enum { rows = shape<U, M, N, K>::rows, columns = shape<U, M, N, K>::columns };
    // What a lane has of it: enough for loops over all elements.
    enum { num_elements = rows * columns };
    float x[num_elements];
};

// The first lane works for its warp.
inline bool lane_0() { return emulator::current % 32 == 0; }

template <class T> void aligned(const T* at, unsigned pitch) {
    if (uintptr_t(at) % 32 || pitch * sizeof(T) % 16) emulator::fail("a fragment at a place that is not aligned");
}

template <class T> float as_loaded(const T* at, void*) { return *at; }
// Tensor cores look at the first ten bits of a mantissa.
inline float as_loaded(const float* at, precision::tf32*) {
    uint32_t all;
    memcpy(&all, at, 4);
    all &= ~0x1fffu;
    float x;
    memcpy(&x, &all, 4);
    return x;
}

template <class F> void fill_fragment(F& f, float x) {
    if (lane_0()) std::fill(f.x, f.x + F::num_elements, x);
}

template <class U, int M, int N, int K, class T, class L, class S>
void load_matrix_sync(fragment<U, M, N, K, T, L>& f, const S* from, unsigned pitch) {
    aligned(from, pitch);
    if (!lane_0()) return;
    for (int row = 0; row < f.rows; row++)
        for (int column = 0; column < f.columns; column++) {
            auto at = std::is_same_v<L, row_major> ? row * pitch + column : column * pitch + row;
            f.x[row * f.columns + column] = as_loaded(from + at, (T*)nullptr);
        }
}

template <class T, int M, int N, int K, class LA, class LB>
__attribute__((optimize("O3"))) void mma_sync(fragment<accumulator, M, N, K, float>& d, const fragment<matrix_a, M, N, K, T, LA>& a,
              const fragment<matrix_b, M, N, K, T, LB>& b, const fragment<accumulator, M, N, K, float>& c) {
    if (!lane_0()) return;
    float sums[M * N];
    memcpy(sums, c.x, sizeof sums);
    for (int i = 0; i < M; i++)
        for (int k = 0; k < K; k++)
            for (int j = 0; j < N; j++) sums[i * N + j] += a.x[i * K + k] * b.x[k * N + j];
    memcpy(d.x, sums, sizeof sums);
}

template <int M, int N, int K>
void store_matrix_sync(float* to, const fragment<accumulator, M, N, K, float>& f, unsigned pitch, layout_t layout) {
    aligned(to, pitch);
    if (!lane_0()) return;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) to[layout == mem_row_major ? i * pitch + j : j * pitch + i] = f.x[i * N + j];
}

inline float __float_to_tf32(float x) {
    uint32_t all;
    memcpy(&all, &x, 4);
    all = (all + 0x1000) & ~0x1fffu;
    memcpy(&x, &all, 4);
    return x;
}
}}
