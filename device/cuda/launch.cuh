/* device/cuda/launch.cuh - the header with two worlds: nvcc, and a C++ compiler with the SIMT
 * emulator of tests/simt. Beside it only mma.cuh, which has the PTX, asks which world it is in; no
 * other file of this folder writes <<<...>>>, __shared__ or a float atomic.
 *
 *   KERNEL(256) add_kernel(float *y, const float *x, int64_t n) { ... }    at most 256 threads
 *   KERNEL(256, 2) ...     and registers for two blocks on a multiprocessor
 *   SHARED(float, tile, [32][33]);            static shared memory; starts as rubbish
 *   SHARED_DYN(float, rows);                  the launch's dynamic shared memory, 16-byte aligned
 *   float *second = shared_carve<float>(&rows_end, n)    parts of it: see SharedArena below
 *   LAUNCH(add_kernel, grid, block, shared_bytes, stream, y, x, n);
 *   LAUNCH((norm_kernel<bf16, 8>), ...)       a template with commas goes into parentheses
 *
 * Rules that the emulator enforces: blocks are multiples of 32 threads and no larger than KERNEL
 * says; a thread may end early only where its whole warp does and the kernel has no barrier behind;
 * every lane named by a mask reaches the same call; shuffles order no memory (use __syncwarp);
 * arguments are trivially copyable and are copied at the call. There is no float atomic: sums have
 * a fixed order. Local arrays are only indexed by unrolled loops (else they live in memory).
 */
#ifndef ISOMOE_DEVICE_CUDA_LAUNCH_CUH
#define ISOMOE_DEVICE_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#include <cuda_bf16.h>
#include <stdint.h>

#ifdef __CUDACC__

#define KERNEL(...) static __global__ void __launch_bounds__(__VA_ARGS__)
#define SHARED(T, name, dims) __shared__ T name dims
#define SHARED_DYN(T, name)                                                                        \
    extern __shared__ __align__(16) unsigned char launch_dynamic_shared[];                         \
    T *name = (T *)launch_dynamic_shared

/* Arguments are converted to the kernel's own types here, as in the emulator. */
template <typename... P, typename... A>
static inline void launch_kernel(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                                 cudaStream_t stream, A... arguments)
{
    static_assert(sizeof...(P) == sizeof...(A), "wrong number of kernel arguments");
    kernel<<<grid, block, shared_bytes, stream>>>((P)arguments...);
}
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    launch_kernel(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#define BY_VALUE const __grid_constant__ /* an argument whose arrays are indexed freely */
#define LIBRARIES_LINKED 0 /* they are opened at run time (libs.h) */

/* Dynamic shared memory in parts: a cursor that starts at SHARED_DYN's pointer. */
template <typename T> static inline __device__ T *shared_carve(unsigned char **cursor, int64_t n)
{
    T *part = (T *)*cursor;
    *cursor += (n * (int64_t)sizeof(T) + 15) / 16 * 16;
    return part;
}

#else
#include <simt.h> /* the same names, from tests/simt */
#define BY_VALUE const
#define LIBRARIES_LINKED 1
#endif

/* Bytes of a carved part as shared_carve takes them: what a launch asks for. */
template <typename T> static inline size_t shared_part(int64_t n)
{
    return ((size_t)n * sizeof(T) + 15) / 16 * 16;
}

#endif
