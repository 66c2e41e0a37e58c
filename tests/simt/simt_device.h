/* tests/simt/simt_device.h - what kernels call: indices, barriers, warp functions, atomics, and the
 * device's own mathematics (the exact forms: a GPU's __expf is some units worse).
 *
 * Functions that wait name the line they are called from (SimSite), so that threads which wait in
 * different places are told apart; two calls on one line are not. */
#ifndef ISOMOE_TESTS_SIMT_SIMT_DEVICE_H
#define ISOMOE_TESTS_SIMT_SIMT_DEVICE_H

/* Included by cuda_runtime.h alone, which has the types. */

struct SimSite {
    const char *file;
    int line;
};
#define SIM_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* ---- Indices ----------------------------------------------------------------------------------*/

struct SimNow {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
extern SimNow sim_now; /* rewritten whenever another thread goes on */
#define threadIdx (sim_now.thread)
#define blockIdx (sim_now.block)
#define blockDim (sim_now.block_dim)
#define gridDim (sim_now.grid_dim)
static constexpr int warpSize = 32;

/* ---- Barriers (sim_sched.cc) ------------------------------------------------------------------*/

/* Waits for the whole block; returns how many threads gave a nonzero value. */
int sim_barrier(const char *what, int value, SimSite site);

static inline void __syncthreads(SIM_HERE) { sim_barrier("__syncthreads", 0, {file, line}); }
static inline int __syncthreads_count(int value, SIM_HERE)
{
    return sim_barrier("__syncthreads_count", value, {file, line});
}
static inline int __syncthreads_or(int value, SIM_HERE)
{
    return sim_barrier("__syncthreads_or", value, {file, line}) != 0;
}
static inline int __syncthreads_and(int value, SIM_HERE)
{
    return sim_barrier("__syncthreads_and", !value, {file, line}) == 0;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

/* ---- Warp functions (sim_warp.cc) -------------------------------------------------------------*/

typedef enum SimWarpOp {
    SIM_SYNC, SIM_BALLOT, SIM_ANY, SIM_ALL, SIM_SHFL, SIM_UP, SIM_DOWN, SIM_XOR, SIM_MATCH,
    SIM_ADD, SIM_MIN, SIM_MAX, SIM_IMIN, SIM_IMAX, SIM_AND, SIM_OR, SIM_BITS_XOR,
    SIM_MMA, SIM_MATRIX, SIM_MATRIX_TRANS, SIM_WARP_OPS
} SimWarpOp;

struct SimWarpCall {
    SimWarpOp op;
    unsigned mask;
    uint64_t value; /* the lane's */
    int operand;    /* source lane, distance, or lane mask */
    int width;
    SimSite site;
};
/* Waits for all lanes of the mask; returns the lane's result. */
uint64_t sim_warp(const SimWarpCall &call);

static inline void __syncwarp(unsigned mask = 0xffffffffu, SIM_HERE)
{
    sim_warp({SIM_SYNC, mask, 0, 0, 32, {file, line}});
}
static inline unsigned __ballot_sync(unsigned mask, int value, SIM_HERE)
{
    return (unsigned)sim_warp({SIM_BALLOT, mask, value != 0, 0, 32, {file, line}});
}
static inline int __any_sync(unsigned mask, int value, SIM_HERE)
{
    return sim_warp({SIM_ANY, mask, value != 0, 0, 32, {file, line}}) != 0;
}
static inline int __all_sync(unsigned mask, int value, SIM_HERE)
{
    return sim_warp({SIM_ALL, mask, value != 0, 0, 32, {file, line}}) == mask;
}

/* Values of 4 or 8 bytes travel as 64 bits. */
template <typename T> static inline T sim_shuffle(SimWarpCall call, T value)
{
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),
                  "shuffles take 32- and 64-bit numbers");
    std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t> bits;
    memcpy(&bits, &value, sizeof value);
    call.value = bits;
    bits = (decltype(bits))sim_warp(call);
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define SIMT_SHUFFLE(name, op, Operand)                                                            \
    template <typename T>                                                                          \
    static inline T name(unsigned mask, T value, Operand operand, int width = 32, SIM_HERE)        \
    {                                                                                              \
        return sim_shuffle({op, mask, 0, (int)operand, width, {file, line}}, value);               \
    }
SIMT_SHUFFLE(__shfl_sync, SIM_SHFL, int)
SIMT_SHUFFLE(__shfl_up_sync, SIM_UP, unsigned)
SIMT_SHUFFLE(__shfl_down_sync, SIM_DOWN, unsigned)
SIMT_SHUFFLE(__shfl_xor_sync, SIM_XOR, int)
#undef SIMT_SHUFFLE

template <typename T> static inline unsigned __match_any_sync(unsigned mask, T value, SIM_HERE)
{
    static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return (unsigned)sim_warp({SIM_MATCH, mask, bits, 0, 32, {file, line}});
}
#define SIMT_REDUCE(name, T, op)                                                                   \
    static inline T name(unsigned mask, T value, SIM_HERE)                                         \
    {                                                                                              \
        return (T)sim_warp({op, mask, (uint64_t)(unsigned)value, 0, 32, {file, line}});            \
    }
SIMT_REDUCE(__reduce_add_sync, unsigned, SIM_ADD)
SIMT_REDUCE(__reduce_add_sync, int, SIM_ADD)
SIMT_REDUCE(__reduce_min_sync, unsigned, SIM_MIN)
SIMT_REDUCE(__reduce_min_sync, int, SIM_IMIN)
SIMT_REDUCE(__reduce_max_sync, unsigned, SIM_MAX)
SIMT_REDUCE(__reduce_max_sync, int, SIM_IMAX)
SIMT_REDUCE(__reduce_and_sync, unsigned, SIM_AND)
SIMT_REDUCE(__reduce_or_sync, unsigned, SIM_OR)
SIMT_REDUCE(__reduce_xor_sync, unsigned, SIM_BITS_XOR)
#undef SIMT_REDUCE

/* ---- Atomics: integers alone. The access itself stays in the caller's object, where the address
 * sanitizer sees it; the race checker is told by the hook instead. ------------------------------*/

void sim_atomic(void *p, size_t n);

#define SIMT_ATOMIC(name, expression)                                                              \
    template <typename T>                                                                          \
    static inline __attribute__((no_sanitize("thread"))) T name(T *p, std::type_identity_t<T> v)   \
    {                                                                                              \
        static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8),                 \
                      "atomics are for 32- and 64-bit integers: sums of floats have an order");    \
        sim_atomic(p, sizeof *p);                                                                  \
        T old = *p;                                                                                \
        *p = (T)(expression);                                                                      \
        return old;                                                                                \
    }
SIMT_ATOMIC(atomicAdd, (std::make_unsigned_t<T>)old + (std::make_unsigned_t<T>)v)
SIMT_ATOMIC(atomicSub, (std::make_unsigned_t<T>)old - (std::make_unsigned_t<T>)v)
SIMT_ATOMIC(atomicMax, old > v ? old : v)
SIMT_ATOMIC(atomicMin, old < v ? old : v)
SIMT_ATOMIC(atomicAnd, old &v)
SIMT_ATOMIC(atomicOr, old | v)
SIMT_ATOMIC(atomicXor, old ^ v)
SIMT_ATOMIC(atomicExch, v)
SIMT_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef SIMT_ATOMIC
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;

template <typename T>
static inline __attribute__((no_sanitize("thread"))) T
atomicCAS(T *p, std::type_identity_t<T> compare, std::type_identity_t<T> v)
{
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "integers");
    sim_atomic(p, sizeof *p);
    T old = *p;
    if (old == compare) *p = v;
    return old;
}

/* ---- Mathematics ------------------------------------------------------------------------------*/

template <typename To, typename From> static inline To sim_bits(From x)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &x, sizeof to);
    return to;
}
static inline unsigned __float_as_uint(float x) { return sim_bits<unsigned>(x); }
static inline int __float_as_int(float x) { return sim_bits<int>(x); }
static inline float __uint_as_float(unsigned x) { return sim_bits<float>(x); }
static inline float __int_as_float(int x) { return sim_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return sim_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return sim_bits<double>(x); }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}

/* macros, for the C library declares functions of these names */
#define __expf expf
#define __exp2f exp2f
#define __logf logf
#define __log2f log2f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __fma_rn(double x, double y, double z) { return fma(x, y, z); }
static inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }

/* min and max of two numbers, mixed integers as the language converts them. */
template <typename A, typename B> static inline std::common_type_t<A, B> min(A a, B b)
{
    static_assert(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>);
    typedef std::common_type_t<A, B> T;
    if constexpr (std::is_floating_point_v<T>) return fmin((T)a, (T)b);
    else return (T)a < (T)b ? (T)a : (T)b;
}
template <typename A, typename B> static inline std::common_type_t<A, B> max(A a, B b)
{
    static_assert(std::is_arithmetic_v<A> && std::is_arithmetic_v<B>);
    typedef std::common_type_t<A, B> T;
    if constexpr (std::is_floating_point_v<T>) return fmax((T)a, (T)b);
    else return (T)a > (T)b ? (T)a : (T)b;
}

/* ---- Loads and stores with a hint: plain ones -------------------------------------------------*/

#define SIMT_LOAD(name)                                                                            \
    template <typename T> static inline T name(const T *p) { return *p; }
#define SIMT_STORE(name)                                                                           \
    template <typename T> static inline void name(T *p, std::type_identity_t<T> v) { *p = v; }
SIMT_LOAD(__ldg)
SIMT_LOAD(__ldcs)
SIMT_LOAD(__ldca)
SIMT_LOAD(__ldcg)
SIMT_LOAD(__ldlu)
SIMT_STORE(__stcs)
SIMT_STORE(__stcg)
SIMT_STORE(__stwb)
SIMT_STORE(__stwt)
#undef SIMT_LOAD
#undef SIMT_STORE

/* A kernel's own complaint. */
[[noreturn]] void sim_trap(SimSite site);
[[noreturn]] static inline void __trap(SIM_HERE) { sim_trap({file, line}); }

/* ---- A launch ---------------------------------------------------------------------------------*/

struct SimLaunch {
    const char *name;
    SimSite site;
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
};

#endif
