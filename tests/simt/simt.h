/* tests/simt/simt.h - launch.cuh's words for the emulator: KERNEL, SHARED, SHARED_DYN, LAUNCH and
 * shared_carve; see there. */
#ifndef ISOMOE_TESTS_SIMT_SIMT_H
#define ISOMOE_TESTS_SIMT_SIMT_H

#include <memory>

#include "tests/simt/cuda_runtime.h"

/* A kernel's bound stands before its entry, as bound / 32 no-operations: the compiler lists where
 * they begin, for templates and enumerated bounds too, and sim_sched.cc looks them up. */
#define KERNEL(max_threads, ...)                                                                   \
    static __attribute__((patchable_function_entry((max_threads) / 32, (max_threads) / 32))) void

/* ---- Shared memory ----------------------------------------------------------------------------*/

/* One line of code that declares a SHARED array; a template's instances have one each. */
struct SimSharedSite {
    const char *name;
    size_t bytes, align;
    SimSite at;
    uint32_t launch; /* in which `address` holds */
    void *address;
};
void *sim_shared(SimSharedSite *site);
unsigned char *sim_shared_dynamic(SimSite at);
unsigned char *sim_shared_part(unsigned char *from, size_t bytes, size_t align,
                               unsigned char **behind);

#define SHARED(T, name, dims)                                                                      \
    static SimSharedSite name##_simt_site = {                                                      \
        #name, sizeof(T dims), alignof(T), {__FILE__, __LINE__}, 0, nullptr};                      \
    T(&name) dims = *(T(*) dims)sim_shared(&name##_simt_site)
#define SHARED_DYN(T, name) T *name = (T *)sim_shared_dynamic({__FILE__, __LINE__})

/* A part has a zone behind it, so that an overflow does not land in the next one. */
template <typename T>
static inline __attribute__((no_sanitize("thread"))) T *shared_carve(unsigned char **cursor,
                                                                     int64_t n)
{
    return (T *)sim_shared_part(*cursor, (size_t)n * sizeof(T), alignof(T), cursor);
}

/* ---- Launch -----------------------------------------------------------------------------------*/

/* A launch's kernel and arguments: run(call.get()) is one thread's call. No std::function here: its
 * code would be instrumented as the kernels are, and its reads are not theirs. */
struct SimBody {
    void (*run)(const void *call);
    std::shared_ptr<const void> call;
};
void sim_launch(const SimLaunch &launch, cudaStream_t stream, SimBody body);

/* A kernel with its arguments, converted to the kernel's own types and copied at the launch. */
template <typename... P> struct SimCall {
    void (*kernel)(P...);
    std::tuple<P...> arguments;
    template <size_t... I>
    __attribute__((no_sanitize("thread"))) void pass(std::index_sequence<I...>) const
    {
        kernel(std::get<I>(arguments)...);
    }
    __attribute__((no_sanitize("thread"))) static void run(const void *call)
    {
        ((const SimCall *)call)->pass(std::index_sequence_for<P...>());
    }
};

template <typename... P, typename... A>
static inline void simt_launch(SimLaunch launch, cudaStream_t stream, void (*kernel)(P...),
                               A... arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "wrong number of kernel arguments");
    static_assert((std::is_trivially_copyable_v<P> && ...), "arguments are copied byte by byte");
    launch.kernel = (const void *)kernel;
    std::tuple<P...> values((P)arguments...);
    sim_launch(launch, stream,
               {SimCall<P...>::run, std::make_shared<SimCall<P...>>(kernel, values)});
}
static inline SimLaunch sim_shape(const char *name, SimSite site, dim3 grid, dim3 block,
                                  size_t shared_bytes)
{
    return {name, site, nullptr, grid, block, shared_bytes};
}
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    simt_launch(sim_shape(#kernel, {__FILE__, __LINE__}, grid, block, shared_bytes), stream,       \
                kernel, __VA_ARGS__)

/* Orders of threads and blocks: 0 ascending, 1 descending, 2 each warp as far as it can go, 3 and
 * above random with permuted blocks, the number is the seed. SIMT_ORDER sets the first one. */
extern "C" void simt_set_order(int order);
/* From now on the program has no code for this GPU: what a build for other architectures sees. */
extern "C" void simt_no_code(bool none);
/* How many orders show something in this kind of build: a sanitizer sees its faults in any one. */
extern "C" int simt_orders();

#endif
