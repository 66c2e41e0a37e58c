/* device/cpu/peaks.c - what the machine can do now: the yardsticks of reported shares.
 *
 * Matrix peak: independent multiply-adds in registers on every thread at once, with the instruction
 * that products use: AMX TDPBF16PS for native bf16, else f32 multiply-adds of the instruction set.
 * Memory peak: STREAM's triad a = b + s c over arrays larger than the caches.
 * Called through device_matrix_peak and device_memory_peak.
 */
#include <omp.h>
#include <stdlib.h>

#include "base/err.h"
#include "device/cpu/cpu.h"
#include "device/cpu/native.h"

/* Chains that hide the latency of a multiply-add; with two operands they fit 16 registers. */
enum { CHAINS = 12, ROUNDS = 4096 };
enum { TRIAD_BYTES = 64 << 20 }; /* one array */

/* Runs ROUNDS rounds; returns the FLOPs done. */
static double fma_burst(float *sink)
{
    VF sum[CHAINS];
    const VF x = (VF){0} + 0.999f, y = (VF){0} + 1e-3f;
#pragma GCC unroll 16
    for (int i = 0; i < CHAINS; i++) sum[i] = (VF){0} + (float)i;
    for (int round = 0; round < ROUNDS; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) sum[i] = sum[i] * x + y;
    }
#pragma GCC unroll 16
    for (int i = 1; i < CHAINS; i++) sum[0] += sum[i];
    *sink += sum[0][0];
    return 2.0 * WIDTH * CHAINS * ROUNDS;
}

/* The tile configuration is loaded by asm from a constant: gcc 12's _tile_loadconfig tells the
 * compiler that it reads 8 of the 64 bytes, and the others may never be written. */
static const struct {
    uint8_t palette, start, zero[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tiles = {.palette = 1,
           .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
           .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

/* The same with AMX: four tiles of sums; one instruction is 16 x 16 x 32 multiply-adds. */
static double amx_burst(void)
{
    __asm__ volatile("ldtilecfg %0\n\t"
                     "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"
                     "tilezero %%tmm4\n\ttilezero %%tmm5"
                     :
                     : "m"(tiles)
                     : "memory");
    for (int round = 0; round < ROUNDS; round++)
        __asm__ volatile("tdpbf16ps %tmm5, %tmm4, %tmm0\n\t"
                         "tdpbf16ps %tmm5, %tmm4, %tmm1\n\t"
                         "tdpbf16ps %tmm5, %tmm4, %tmm2\n\t"
                         "tdpbf16ps %tmm5, %tmm4, %tmm3");
    __asm__ volatile("tilerelease");
    return 2.0 * 16 * 16 * 32 * 4 * ROUNDS;
}

double cpu_peaks_matrix(Device *d, DType type, double seconds)
{
    const bool amx = type == DT_BF16 && cpu_state(d)->native_bf16;
    double rate = 0;
    float sink = 0;
#pragma omp parallel num_threads(d->threads) reduction(+ : rate, sink)
    {
        double flops = 0, elapsed;
#pragma omp barrier
        const double begin = omp_get_wtime();
        do {
            flops += amx ? amx_burst() : fma_burst(&sink);
            elapsed = omp_get_wtime() - begin;
        } while (elapsed < seconds);
        rate += flops / elapsed;
    }
    CHECK(sink == sink, "the loop of the matrix peak made a NaN");
    return rate;
}

double cpu_peaks_memory(Device *d, double seconds)
{
    enum { COUNT = TRIAD_BYTES / sizeof(float) };
    float *a = NULL;
    CHECK(!posix_memalign((void **)&a, 64, 3 * (size_t)TRIAD_BYTES),
          "out of memory for the three arrays of the memory peak");
    float *b = a + COUNT, *c = b + COUNT;
    double begin = 0;
    int64_t passes = 0;
    do {
#pragma omp parallel for num_threads(d->threads)
        for (int64_t i = 0; i < COUNT; i++) {
            if (passes == 0) a[i] = b[i] = c[i] = 1.0f;
            else a[i] = b[i] + 0.5f * c[i];
        }
        if (!passes++) begin = omp_get_wtime(); /* the first pass only touches the pages */
    } while (passes < 2 || omp_get_wtime() - begin < seconds);
    const double elapsed = omp_get_wtime() - begin;
    free(a);
    return (double)(passes - 1) * 3 * TRIAD_BYTES / elapsed;
}
